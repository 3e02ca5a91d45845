"""Messages as bytes, put together by hand from the tables of the Mesos v1 API, beside their JSON form.

Nothing here comes out of the code under test: a number or a wire type that is wrong in a .proto shows here.
"""

from __future__ import annotations

import json

import pytest
from google.protobuf.message import Message

from edgerm.wire.content import from_protobuf, to_protobuf
from edgerm.wire.json import from_json, to_json
from edgerm.wire.v1 import executor_pb2, master_pb2, scheduler_pb2

UUID_HEX = "00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f"
UUID_BASE64 = "AAECAwQFBgcICQoLDA0ODw=="

SUBSCRIBE = """
10 01                              # type = 2: SUBSCRIBE 1
1a 1f                              # subscribe = 3, 31 bytes
  0a 19                            #   framework_info = 1, 25 bytes
    0a 04 72 6f 6f 74              #     user = 1: "root"
    12 04 64 65 6d 6f              #     name = 2: "demo"
    21 00 00 00 00 00 c0 82 40     #     failover_timeout = 4: 600.0
    52 02                          #     capabilities = 10, 2 bytes
      08 05                        #       type = 1: PARTITION_AWARE 5
  12 02 71 61                      #   suppressed_roles = 2: "qa"
"""

ACCEPT = """
0a 04 0a 02 46 31                  # framework_id = 1: "F1"
10 03                              # type = 2: ACCEPT 3
22 4d                              # accept = 4, 77 bytes
  0a 04 0a 02 4f 31                #   offer_ids = 1: "O1"
  12 3a                            #   operations = 2, 58 bytes
    08 01                          #     type = 1: LAUNCH 1
    12 36                          #     launch = 2, 54 bytes
      0a 34                        #       task_infos = 1, 52 bytes
        0a 01 74                   #         name = 1: "t"
        12 04 0a 02 54 31          #         task_id = 2: "T1"
        1a 04 0a 02 41 31          #         agent_id = 3: "A1"
        22 13                      #         resources = 4, 19 bytes
          0a 04 63 70 75 73        #           name = 1: "cpus"
          10 00                    #           type = 2: SCALAR 0
          1a 09                    #           scalar = 3, 9 bytes
            09 00 00 00 00 00 00 e0 3f   #       value = 1: 0.5
        3a 0e                      #         command = 7, 14 bytes
          1a 04 74 72 75 65        #           value = 3: "true"
          30 00                    #           shell = 6: false
          3a 04 74 72 75 65        #           arguments = 7: "true"
  1a 09                            #   filters = 3, 9 bytes
    09 00 00 00 00 00 00 f0 3f     #     refuse_seconds = 1: 1.0
"""

ACKNOWLEDGE = f"""
0a 04 0a 02 46 31                  # framework_id = 1: "F1"
10 08                              # type = 2: ACKNOWLEDGE 8
42 1e                              # acknowledge = 8, 30 bytes
  0a 04 0a 02 41 31                #   agent_id = 1: "A1"
  12 04 0a 02 54 31                #   task_id = 2: "T1"
  1a 10 {UUID_HEX}                 #   uuid = 3
"""

KILL = """
0a 04 0a 02 46 31                  # framework_id = 1: "F1"
10 06                              # type = 2: KILL 6
32 16                              # kill = 6, 22 bytes
  0a 04 0a 02 54 31                #   task_id = 1: "T1"
  12 04 0a 02 41 31                #   agent_id = 2: "A1"
  1a 08                            #   kill_policy = 3, 8 bytes
    0a 06                          #     grace_period = 1, 6 bytes
      08 80 bc c1 96 0b            #       nanoseconds = 1: 3,000,000,000
"""

RECONCILE = """
0a 04 0a 02 46 31                  # framework_id = 1: "F1"
10 09                              # type = 2: RECONCILE 9
4a 16                              # reconcile = 9, 22 bytes
  0a 0c                            #   tasks = 1, 12 bytes
    0a 04 0a 02 54 31              #     task_id = 1: "T1"
    12 04 0a 02 41 31              #     agent_id = 2: "A1"
  0a 06                            #   tasks = 1, 6 bytes
    0a 04 0a 02 54 32              #     task_id = 1: "T2"
"""

SUBSCRIBED = """
08 01                              # type = 1: SUBSCRIBED 1
12 24                              # subscribed = 2, 36 bytes
  0a 04 0a 02 46 31                #   framework_id = 1: "F1"
  11 00 00 00 00 00 00 2e 40       #   heartbeat_interval_seconds = 2: 15.0
  1a 13                            #   master_info = 3, 19 bytes
    0a 01 4d                       #     id = 1: "M"
    10 ff 80 80 08                 #     ip = 2: 127.0.0.1 as 0x0100007f
    18 ba 27                       #     port = 3: 5050
    32 06 31 2e 31 31 2e 30        #     version = 6: "1.11.0"
"""

OFFERS = """
08 02                              # type = 1: OFFERS 2
1a 47                              # offers = 3, 71 bytes
  0a 45                            #   offers = 1, 69 bytes
    0a 04 0a 02 4f 31              #     id = 1: "O1"
    12 04 0a 02 46 31              #     framework_id = 2: "F1"
    1a 04 0a 02 41 31              #     agent_id = 3: "A1"
    22 01 68                       #     hostname = 4: "h"
    2a 18                          #     resources = 5, 24 bytes
      0a 05 70 6f 72 74 73         #       name = 1: "ports"
      10 01                        #       type = 2: RANGES 1
      22 0a                        #       ranges = 4, 10 bytes
        0a 08                      #         range = 1, 8 bytes
          08 98 f2 01              #           begin = 1: 31000
          10 80 fa 01              #           end = 2: 32000
      32 01 2a                     #       role = 6: "*"
    3a 0f                          #     attributes = 7, 15 bytes
      0a 02 6f 73                  #       name = 1: "os"
      10 03                        #       type = 2: TEXT 3
      2a 07                        #       text = 5, 7 bytes
        0a 05 6c 69 6e 75 78       #         value = 1: "linux"
    52 03 0a 01 2a                 #     allocation_info = 10, role = 1: "*"
"""

UPDATE = f"""
08 04                              # type = 1: UPDATE 4
2a 38                              # update = 5, 56 bytes
  0a 36                            #   status = 1, 54 bytes
    0a 04 0a 02 54 31              #     task_id = 1: "T1"
    10 01                          #     state = 2: TASK_RUNNING 1
    2a 04 0a 02 41 31              #     agent_id = 5: "A1"
    31 00 00 00 00 00 00 f8 3f     #     timestamp = 6: 1.5
    40 01                          #     healthy = 8: true
    48 02                          #     source = 9: SOURCE_EXECUTOR 2
    50 09                          #     reason = 10: REASON_RECONCILIATION 9
    5a 10 {UUID_HEX}               #     uuid = 11
    c0 3e 00                       #     ours, exit_code = 1000: 0
    ea 3e 01 78                    #     ours, detail = 1005: "x"
"""

HEARTBEAT = """
08 08                              # type = 1: HEARTBEAT 8
"""

EXECUTOR_SUBSCRIBE = """
0a 04 0a 02 45 31                  # executor_id = 1: "E1"
12 04 0a 02 46 31                  # framework_id = 2: "F1"
18 01                              # type = 3: SUBSCRIBE 1
22 0c                              # subscribe = 4, 12 bytes
  12 0a                            #   unacknowledged_updates = 2, 10 bytes
    0a 08                          #     status = 1, 8 bytes
      0a 04 0a 02 54 31            #       task_id = 1: "T1"
      10 00                        #       state = 2: TASK_STARTING 0
"""

EXECUTOR_UPDATE = """
0a 04 0a 02 45 31                  # executor_id = 1: "E1"
12 04 0a 02 46 31                  # framework_id = 2: "F1"
18 02                              # type = 3: UPDATE 2
2a 0a                              # update = 5, 10 bytes
  0a 08                            #   status = 1, 8 bytes
    0a 04 0a 02 54 31              #     task_id = 1: "T1"
    10 02                          #     state = 2: TASK_FINISHED 2
"""

GET_AGENTS_CALL = """
08 0a                              # type = 1: GET_AGENTS 10
"""

GET_AGENTS_RESPONSE = """
08 09                              # type = 1: GET_AGENTS 9
52 2b                              # get_agents = 10, 43 bytes
  0a 29                            #   agents = 1, 41 bytes
    0a 0a                          #     agent_info = 1, 10 bytes
      0a 01 68                     #       hostname = 1: "h"
      40 bb 27                     #       port = 8: 5051
      c2 3e 01 6e                  #       ours, name = 1000: "n"
    10 01                          #     active = 2: true
    1a 06 31 2e 31 31 2e 30        #     version = 3: "1.11.0"
    c2 3e 06 6a 6f 69 6e 65 64     #     ours, link_state = 1000: "joined"
    c9 3e 00 00 00 00 00 00 e0 3f  #     ours, last_beat_s = 1001: 0.5
"""

F1, A1, T1, E1 = ({"value": name} for name in ("F1", "A1", "T1", "E1"))

VECTORS: dict[str, tuple[type[Message], str, object]] = {
    "scheduler SUBSCRIBE": (
        scheduler_pb2.Call,
        SUBSCRIBE,
        {
            "type": "SUBSCRIBE",
            "subscribe": {
                "framework_info": {
                    "user": "root",
                    "name": "demo",
                    "failover_timeout": 600.0,
                    "capabilities": [{"type": "PARTITION_AWARE"}],
                },
                "suppressed_roles": ["qa"],
            },
        },
    ),
    "scheduler ACCEPT": (
        scheduler_pb2.Call,
        ACCEPT,
        {
            "framework_id": F1,
            "type": "ACCEPT",
            "accept": {
                "offer_ids": [{"value": "O1"}],
                "operations": [
                    {
                        "type": "LAUNCH",
                        "launch": {
                            "task_infos": [
                                {
                                    "name": "t",
                                    "task_id": T1,
                                    "agent_id": A1,
                                    "resources": [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.5}}],
                                    "command": {"value": "true", "shell": False, "arguments": ["true"]},
                                }
                            ]
                        },
                    }
                ],
                "filters": {"refuse_seconds": 1.0},
            },
        },
    ),
    "scheduler ACKNOWLEDGE": (
        scheduler_pb2.Call,
        ACKNOWLEDGE,
        {
            "framework_id": F1,
            "type": "ACKNOWLEDGE",
            "acknowledge": {"agent_id": A1, "task_id": T1, "uuid": UUID_BASE64},
        },
    ),
    "scheduler KILL": (
        scheduler_pb2.Call,
        KILL,
        {
            "framework_id": F1,
            "type": "KILL",
            "kill": {
                "task_id": T1,
                "agent_id": A1,
                "kill_policy": {"grace_period": {"nanoseconds": 3_000_000_000}},
            },
        },
    ),
    "scheduler RECONCILE": (
        scheduler_pb2.Call,
        RECONCILE,
        {
            "framework_id": F1,
            "type": "RECONCILE",
            "reconcile": {"tasks": [{"task_id": T1, "agent_id": A1}, {"task_id": {"value": "T2"}}]},
        },
    ),
    "scheduler SUBSCRIBED": (
        scheduler_pb2.Event,
        SUBSCRIBED,
        {
            "type": "SUBSCRIBED",
            "subscribed": {
                "framework_id": F1,
                "heartbeat_interval_seconds": 15.0,
                "master_info": {"id": "M", "ip": 0x0100007F, "port": 5050, "version": "1.11.0"},
            },
        },
    ),
    "scheduler OFFERS": (
        scheduler_pb2.Event,
        OFFERS,
        {
            "type": "OFFERS",
            "offers": {
                "offers": [
                    {
                        "id": {"value": "O1"},
                        "framework_id": F1,
                        "agent_id": A1,
                        "hostname": "h",
                        "resources": [
                            {
                                "name": "ports",
                                "type": "RANGES",
                                "ranges": {"range": [{"begin": 31000, "end": 32000}]},
                                "role": "*",
                            }
                        ],
                        "attributes": [{"name": "os", "type": "TEXT", "text": {"value": "linux"}}],
                        "allocation_info": {"role": "*"},
                    }
                ]
            },
        },
    ),
    "scheduler UPDATE": (
        scheduler_pb2.Event,
        UPDATE,
        {
            "type": "UPDATE",
            "update": {
                "status": {
                    "task_id": T1,
                    "state": "TASK_RUNNING",
                    "agent_id": A1,
                    "timestamp": 1.5,
                    "healthy": True,
                    "source": "SOURCE_EXECUTOR",
                    "reason": "REASON_RECONCILIATION",
                    "uuid": UUID_BASE64,
                    "exit_code": 0,
                    "detail": "x",
                }
            },
        },
    ),
    "scheduler HEARTBEAT": (scheduler_pb2.Event, HEARTBEAT, {"type": "HEARTBEAT"}),
    "executor SUBSCRIBE": (
        executor_pb2.Call,
        EXECUTOR_SUBSCRIBE,
        {
            "executor_id": E1,
            "framework_id": F1,
            "type": "SUBSCRIBE",
            "subscribe": {"unacknowledged_updates": [{"status": {"task_id": T1, "state": "TASK_STARTING"}}]},
        },
    ),
    "executor UPDATE": (
        executor_pb2.Call,
        EXECUTOR_UPDATE,
        {
            "executor_id": E1,
            "framework_id": F1,
            "type": "UPDATE",
            "update": {"status": {"task_id": T1, "state": "TASK_FINISHED"}},
        },
    ),
    "master GET_AGENTS call": (master_pb2.Call, GET_AGENTS_CALL, {"type": "GET_AGENTS"}),
    "master GET_AGENTS response": (
        master_pb2.Response,
        GET_AGENTS_RESPONSE,
        {
            "type": "GET_AGENTS",
            "get_agents": {
                "agents": [
                    {
                        "agent_info": {"hostname": "h", "port": 5051, "name": "n"},
                        "active": True,
                        "version": "1.11.0",
                        "link_state": "joined",
                        "last_beat_s": 0.5,
                    }
                ]
            },
        },
    ),
}


def octets(vector: str) -> bytes:
    """The bytes of a vector: hexadecimal, without what follows a # on each line."""
    return bytes.fromhex("".join(line.partition("#")[0] for line in vector.splitlines()))


@pytest.mark.parametrize("name", VECTORS)
def test_bytes_and_json_of_a_vector_are_the_same_message(name: str) -> None:
    """A message reads the same from hand-made bytes and from hand-made JSON, and is written back as both."""
    message_class, vector, document = VECTORS[name]
    from_bytes = from_protobuf(message_class, octets(vector))
    assert from_bytes == from_json(message_class, json.dumps(document).encode())
    assert to_protobuf(from_bytes).hex(" ") == octets(vector).hex(" ")
    assert json.loads(to_json(from_bytes)) == document
