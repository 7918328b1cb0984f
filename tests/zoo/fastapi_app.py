"""A healthy server with FastAPI, for uvicorn."""

from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Batch(BaseModel):
    instances: list[list[float]]


@app.get("/ping")
def ping() -> None:
    return None


@app.post("/invocations")
def invoke(batch: Batch) -> dict[str, list[float]]:
    return {"sums": [sum(row) for row in batch.instances]}
