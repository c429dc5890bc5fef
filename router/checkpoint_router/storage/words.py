"""Words that records are full of: what is like them is stored as a reference to them.

Rules: a record that was packed with a list of words can be read with that list alone, so a list is
never edited once it was released; another one gets a flag of its own in `codec`.
"""

from typing import Final

RECORDS: Final = (
    b"langchain_core.messages.systemSystemMessagelangchain_core.messages.tool"
    b"\xabToolMessage\xactool_call_idstatus\xa7success\xa8artifact"
    b"langchain_core.messages.ai\xa9AIMessage\x89langchain_core.messages.human\xacHumanMessage\x86"
    b"\xa7content\xda\xb1additional_kwargs\x80\xb1response_metadata\x80\xa4type\xa5human\xa4type"
    b"\xa4tool\xa4type\xa2ai\xa4name\xc0\xa2id\xaatool_calls\x90\xb2invalid_tool_calls\x90"
    b"\xaeusage_metadata\xc0\xb3model_validate_json"
    b"__resume__interrupt__error____no_writes____pregel_tasks__pregel_push~__pregel_pull, "
    b'\x93\x92\xa6source\xa6"fork"\x92\xa6source\xa8"update"\x92\xa6source\xa7"input"'
    b'\x92\xa6source\xa6"loop"\x92\xa4step\xa1\x92\xa6run_id\x92\xa7parents\xa2{}'
    b"\x93\x00\xa7msgpack\xc4\x85\xa1v\x04\xa2ts\xd9 2026-01-01T00:00:00.000000+00:00"
    b"\xa2id\xd9$1f100000-0000-6000-8000-000000000000\xadversions_seen\x83\xa9__input__\x80"
    b"\xa9__start__\x81\xa9__start__\xb50000000000.0\xa5agent\x81\xb0branch:to:agent"
    b"\xb50000000000.0\xa5tools\x81\xb0branch:to:tools\xb0updated_channels\x91\xa8messages"
    b"\x93\x93\xa9__start__\xb50000000000.0\x92\x01\xc4 \x93\xb0branch:to:agent\xb50000000000."
    b"\x91\x03\x93\x00\xa4null\xc4\x00"
)
"""Those of LangGraph's checkpoints, writes and messages, the most usual last."""
