"""What an agent meets outside: pictures to download, and a bucket that takes outputs. Run as a child process.

`python -m benchmarks.file_server PORT PICTURE`
"""

from __future__ import annotations

import sys
from pathlib import Path

from aiohttp import web

from benchmarks.pictures import new_variant


def application(picture: bytes) -> web.Application:
    """GET /pictures/NAME is another file each time, as another caller's would be. PUT /bucket/KEY keeps nothing."""

    async def give(_request: web.Request) -> web.Response:
        return web.Response(body=new_variant(picture), content_type="image/png")

    async def take(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(headers={"ETag": '"1"'})

    app = web.Application(client_max_size=2**30)
    app.add_routes([web.get("/pictures/{name}", give), web.put("/bucket/{key:.+}", take)])
    return app


if __name__ == "__main__":
    web.run_app(
        application(Path(sys.argv[2]).read_bytes()),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        access_log=None,
        print=None,
    )
