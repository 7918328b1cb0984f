"""A healthy server with Tornado, which accepts images of unknown content."""

import asyncio
import os
import signal

from tornado.web import Application, RequestHandler


class Ping(RequestHandler):
    def get(self) -> None:
        self.set_status(200)


class Invocations(RequestHandler):
    def post(self) -> None:
        if not self.request.headers.get("Content-Type", "").startswith("image/"):
            self.set_status(415)
            self.finish({"error": "send an image"})
        elif self.request.body[:4] != b"\x89PNG":
            self.set_status(422)
            self.finish({"error": "not a PNG image"})
        else:
            self.finish({"bytes": len(self.request.body)})


async def main() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    routes = [("/ping", Ping), ("/invocations", Invocations)]
    port = int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080"))
    Application(routes).listen(port, "0.0.0.0")
    await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
