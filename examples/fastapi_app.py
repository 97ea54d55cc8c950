"""The guard as middleware of somebody's FastAPI app that answers with a model of its own; Starlette takes it alike.

python examples/fastapi_app.py, then point clients at http://127.0.0.1:8081/v1
"""

from typing import Any

from fastapi import FastAPI

from guard import Guard, GuardMiddleware, load_guard


def make_app(guard: Guard) -> FastAPI:
    """The app; only its chat completions are guarded."""
    app = FastAPI()
    app.add_middleware(GuardMiddleware, guard=guard)

    @app.post("/v1/chat/completions")
    async def chat(body: dict[str, Any]) -> dict[str, Any]:
        message = {"role": "assistant", "content": f"You said: {body['messages'][-1]['content']}"}
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }

    @app.get("/hello")
    async def hello() -> str:
        return "not guarded"

    return app


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(make_app(load_guard()), port=8081)
