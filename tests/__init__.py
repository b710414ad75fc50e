"""The tests, in the rooms of the package; what several of them share is in `tests.helpers`."""
