"""ComfyUI's own clients get pictures as they are delivered, not as the engine made them."""

from __future__ import annotations

from tests.integration.agent.editor import connected, kinds
from tests.integration.safety.conftest import SAFE, UNSAFE, Hook, MakeAgent, reviewed
from tests.integration.safety.test_images import drawn, is_blurred


async def test_picture_is_named_when_it_was_reviewed_and_shown_as_it_was_delivered(
    make_agent: MakeAgent, hook: Hook
) -> None:
    agent = await make_agent(pass_through=["all"], **reviewed(hook))
    for seed, answer in ((11, SAFE), (12, UNSAFE)):
        hook.answers = [answer]
        async with connected(agent) as client:
            prompt_id = (await client.queue_prompt(drawn(seed))).ok()["prompt_id"]
            heard = await client.hear_out(prompt_id)
            assert not [message for message in heard if isinstance(message, bytes)], "no previews"
            told = kinds(heard)
            assert told.index("executed") == told.index("execution_success") - 1
            executed = next(message for message in heard if message["type"] == "executed")
            (file,) = executed["data"]["output"]["images"]
            for asked in ({}, {"preview": "jpeg;90"}, {"channel": "rgb"}):
                assert is_blurred(await client.get_image({**file, **asked})) is (answer is UNSAFE), asked
