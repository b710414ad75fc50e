"""What runs the steps of a generation with the torch model; each is a `generation.loop.Engine`.

`eager` ("torch") calls the modules, on any device. `graph` ("graph") does so for the prompt and replays a captured step
(`decode_graph`, over `decode_weights`) for the tokens, on a GPU. `native` ("native") hands the call to the Rust engine
on a CPU, over a packed copy of the weights (`native_twin`), if it knows all modules (`known_modules`). They see the
model through the protocols in `model`, and what a call gives it through `model_inputs`.
"""
