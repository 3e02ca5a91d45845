"""Three containers in a row, camera → filter → sink, on one box; a stage that breaks is started again. Where an agent
has a Docker engine:

    python -m edgerm_frameworks.camera_pipeline [URL of a master] [FRAMES] [IMAGE]

FRAMES results are printed; 0: until Ctrl-C. The image needs a shell and awk, no more.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable

from edgerm.core.alternatives import EXECUTORS
from edgerm.core.attributes import texts
from edgerm.sdk import Agent, Cluster, TaskHandle, TaskState, Unavailable, connect
from edgerm_frameworks.program import run, start

MASTER = "http://127.0.0.1:5050"
IMAGE = "busybox"
PAUSE_S = 0.5  # before a stage is started again
# 1. The stages share a volume, which the box's engine keeps: what is in it outlives each of them. So none has to know
#    where the others are, and nothing is lost while one is away. A frame appears in one step (mv), whole or not at all,
#    and is removed when its result is there: after a break one may come twice, but none is left out.
#    (`docker volume rm edgerm-camera` removes it for good.)
VOLUME = "edgerm-camera:/frames"

# 2. The camera makes frames of 16 x 16 points, as this sample runs without hardware. When a hundred frames wait it
#    waits too: disks are small.
CAMERA = """
number=0
[ -e /frames/number ] && number=$(cat /frames/number)
while :; do
    if [ "$(ls /frames | grep -c raw)" -lt 100 ]; then
        number=$((number + 1))
        awk -v seed=$number 'BEGIN { srand(seed); for (i = 0; i < 256; i++) print int(256 * rand()) }' > /frames/new
        mv /frames/new /frames/$(printf %09d $number).raw
        echo $number > /frames/number
    fi
    sleep 0.1
done
"""

FILTER = """
while :; do
    for frame in /frames/*.raw; do
        [ -e "$frame" ] || break
        awk '{ sum += $1 } END { printf "%.1f\\n", sum / NR }' "$frame" > /frames/result
        mv /frames/result "${frame%.raw}.mean"
        rm "$frame"
    done
    sleep 0.1
done
"""

SINK = """
while :; do
    for result in /frames/*.mean; do
        [ -e "$result" ] || break
        echo "frame $(basename "$result" .mean): mean brightness $(cat "$result")"
        rm "$result"
    done
    sleep 0.1
done
"""


# 3. A container's first process has no default signal handlers: it says itself that it ends when it is asked to.
async def launch(cluster: Cluster, name: str, script: str, image: str, box: Agent) -> TaskHandle:
    """Start a stage; returns when it runs. Raises `Unavailable` with the reason if it never does."""
    handle = await cluster.launch(
        docker=image,
        args=["sh", "-c", f"trap exit TERM\n{script}"],
        volumes=[VOLUME],
        network="none",
        constraints=[f"@agent={box.agent_id}"],
        devices=["camera"] if name == "camera" and has_camera(box) else [],
        name=name,
    )
    status = await handle.started()
    if status.state.terminal and status.state is not TaskState.KILLED:
        raise Unavailable(f"the {name} cannot run: {status.message}")
    return handle


async def keep(cluster: Cluster, name: str, script: str, image: str, box: Agent) -> None:
    """4. A stage runs until we are cancelled. When it ends, whyever, another one takes its place, on the same box."""
    while True:
        handle = await launch(cluster, name, script, image, box)
        print(f"{name} runs", flush=True)
        status = await handle.ended()
        print(f"{name} ended ({status.state.name}: {status.message}), starting it again", flush=True)
        await asyncio.sleep(PAUSE_S)


async def show(sink: TaskHandle, frames: int) -> int:
    """5. What the sink prints comes here as it is printed, line by line or several at once."""
    shown, rest = 0, b""
    async for piece in sink.logs():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            print(line.decode(), flush=True)
            shown += 1
            if shown == frames:
                return 0
    sys.stderr.write(f"camera_pipeline: the sink ended: {sink.status.message}\n")
    return 1


# 6. All go to one box, for there is the volume: one that runs containers, and better one whose operator has declared a
#    camera (agent.toml). Then the camera's container has that device, with all that was declared with it, to itself.
def choose(agents: Iterable[Agent]) -> Agent:
    """The box; raises `Unavailable` if there is none."""
    boxes = [agent for agent in agents if "docker" in texts(agent.attributes.get(EXECUTORS, ()))]
    if not boxes:
        raise Unavailable("no agent has a Docker engine that answers")
    return max(boxes, key=has_camera)


def has_camera(agent: Agent) -> bool:
    """Whether a camera is among its resources."""
    return any(key.name == "camera" for key in agent.spec.resources)


async def pipeline(master: str, frames: int, image: str) -> int:
    """From its end to its beginning, so that nothing is made that nobody takes."""
    async with connect(master) as cluster:
        box = choose((await cluster.agents()).values())
        sink = await launch(cluster, "sink", SINK, image, box)
        async with asyncio.TaskGroup() as group:
            stages = [
                group.create_task(keep(cluster, name, script, image, box))
                for name, script in (("filter", FILTER), ("camera", CAMERA))
            ]
            status = await show(sink, frames)
            for stage in stages:
                stage.cancel()
    return status


def main(master: str = MASTER, frames: str = "20", image: str = IMAGE) -> int:
    """Run it; the exit status: 1 a stage cannot run or the sink ended, 2 wrong arguments, 130 after Ctrl-C."""
    if not frames.isdecimal():
        sys.stderr.write(f"camera_pipeline: how many frames? {frames!r} is no number\n")
        return 2
    return run("camera_pipeline", pipeline(master, int(frames), image))


if __name__ == "__main__":
    raise SystemExit(start(main, __doc__, sys.argv[1:]))
