import asyncio
import asyncio.timeouts as t
import inspect
async def test_dbg():
    print(inspect.getsource(t.Timeout.__aexit__)[-500:], t.Timeout.__aexit__.__code__.co_filename)
    try:
        async with asyncio.timeout(0.05):
            await asyncio.gather(asyncio.sleep(1))
    except TimeoutError:
        print("fine")
    task = asyncio.current_task(); print(type(task), task.uncancel)
    assert 0
