"""The stub with OpenAI's Batch API beside it."""

import json
import time
from collections import Counter
from collections.abc import Callable

from aiohttp import web
from stub import Stub


class BatchStub(Stub):
    """Answers a batch's requests when it is created and tells so when it is old enough."""

    def __init__(self, *args, seconds: float = 0.3, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.seconds = seconds
        self.paid: Counter[str] = Counter()
        """Requests that were answered, by custom id."""
        self.batches: dict[str, dict] = {}
        self.files: dict[str, str] = {}
        self.looks = 0
        self.on_create: Callable[[dict], web.Response | None] = lambda batch: None
        """Sees a batch when it has been created; what it gives goes out instead of the batch."""
        self.spoil: Callable[[list[dict]], tuple[list[str], str]] = lambda rows: (
            list(map(json.dumps, rows)),
            "completed",
        )
        """Output lines and end of a batch, from the rows that were answered."""
        self.break_off = 0
        """Downloads that end half-way."""
        self.zhipu = False
        """Whether it tells of batches as Zhipu does: counts that are null, milliseconds."""
        self.refuse: Callable[[str], web.Response | None] = lambda path: None

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/v1/files", self._upload)
        app.router.add_get("/v1/files/{id}/content", self._content)
        app.router.add_post("/v1/batches", self._create)
        app.router.add_get("/v1/batches", self._list)
        app.router.add_get("/v1/batches/{id}", self._retrieve)

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        if (failure := self._rejects(request) or self.refuse(request.path)) is not None:
            return failure
        assert form["purpose"] == "batch"
        id = self._keep(form["file"].file.read().decode())
        return web.json_response(
            {
                "id": id,
                "object": "file",
                "bytes": 1,
                "created_at": 0,
                "filename": "f",
                "purpose": "batch",
                "status": "ok",
            }
        )

    async def _content(self, request: web.Request) -> web.StreamResponse:
        if (failure := self._rejects(request) or self.refuse(request.path)) is not None:
            return failure
        text = self.files[request.match_info["id"]].encode()
        if not self.break_off:
            return web.Response(body=text)
        self.break_off -= 1
        response = web.StreamResponse(headers={"Content-Length": str(len(text))})
        await response.prepare(request)
        await response.write(text[: len(text) // 2])
        request.transport.close()
        return response

    async def _create(self, request: web.Request) -> web.Response:
        if (failure := self._rejects(request) or self.refuse(request.path)) is not None:
            return failure
        asked = await request.json()
        assert asked["endpoint"] == "/v1/chat/completions"
        batch = {
            "id": f"batch_{len(self.batches)}",
            "object": "batch",
            "status": "in_progress",
            "created_at": int(time.time() * (1000 if self.zhipu else 1)),
            "request_counts": {"total": 1, "completed": None if self.zhipu else 0, "failed": None},
            **asked,
        }
        rows = [json.loads(line) for line in self.files[asked["input_file_id"]].splitlines()]
        assert len({row["custom_id"] for row in rows}) == len(rows)
        self.batches[batch["id"]] = batch
        instead = self.on_create(batch)
        if batch["status"] != "failed":
            answered = []
            for row in rows:
                self.paid[row["custom_id"]] += 1
                response = {"status_code": 200, "body": self.reply_to(row["body"])}
                answered.append({"custom_id": row["custom_id"], "response": response, "error": None})
            lines, end = self.spoil(answered)
            batch |= {"end": end, "output": self._keep("\n".join(lines)), "ready": time.time() + self.seconds}
            if not self.zhipu:
                batch["request_counts"] = {"total": len(rows), "completed": len(lines), "failed": 0}
        return instead or web.json_response(batch)

    async def _list(self, request: web.Request) -> web.Response:
        data = list(reversed(self.batches.values()))
        return (
            self._rejects(request)
            or self.refuse(request.path + "?")
            or web.json_response({"object": "list", "data": data, "has_more": False})
        )

    async def _retrieve(self, request: web.Request) -> web.Response:
        self.looks += 1
        if (failure := self._rejects(request) or self.refuse(request.path)) is not None:
            return failure
        batch = self.batches[request.match_info["id"]]
        if batch["status"] == "in_progress" and time.time() >= batch["ready"]:
            batch |= {"status": batch["end"], "output_file_id": batch["output"]}
        return web.json_response(batch)

    def _keep(self, text: str) -> str:
        id = f"file_{len(self.files)}"
        self.files[id] = text
        return id
