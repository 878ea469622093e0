from tests.contract.world import World
async def test_it(world: World) -> None:
    a = await world.bytes("{users(first:3){totalCount nodes{id displayName attributes notes(first:2){nodes{score weight data}} noteScore nickname}}}", {})
    print(a.decode())
