"""Native half of faster_smolvlm (Rust); the arrays are C-contiguous NumPy arrays."""

VERSION: str
BUILD_PROFILE: str
