"""A child that is forked while other threads generate has a working engine."""

import subprocess
import sys

import pytest

FORKS = """
import os, signal, sys, threading, time
from faster_smolvlm import SmolVLM
from PIL import Image

vlm = SmolVLM.from_pretrained("demo", device="cpu", num_threads=1)
picture = Image.new("RGB", (128, 128), (90, 90, 100))
ask = dict(images=picture, max_new_tokens=12)
expected = vlm.generate("Describe the image.", **ask).text

def busy(number):
    while True:
        vlm.generate(f"Describe the image {number}.", reuse=number > 0, **ask)

for number in range(3):
    threading.Thread(target=busy, args=[number], daemon=True).start()
time.sleep(0.1)
for fork in range(int(sys.argv[1])):
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # the end of a child that hangs
        answers = [vlm.generate("Describe the image.", reuse=reuse, **ask).text for reuse in (False, True)]
        os._exit(0 if answers == [expected] * 2 else 1)
    status = os.waitpid(child, 0)[1]
    assert status == 0, f"fork {fork}: status {status}"
print("all children answered", flush=True)
os._exit(0)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks of a process with threads")
def test_children_of_a_busy_process_answer() -> None:
    done = subprocess.run([sys.executable, "-c", FORKS, "20"], capture_output=True, text=True, timeout=240)
    assert done.stdout == "all children answered\n", done.stderr[-2000:]
