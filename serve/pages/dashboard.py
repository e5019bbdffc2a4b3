"""The dashboard: counts, how good the probe is, what came since, and a button to train again."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Form, Request, Response

from kinshelf.db.errors import EmptyShelf, ProbeError, ShelfError
from kinshelf.probe.calibrate.mixture import HeldOut
from kinshelf.probe.evaluate.metrics import ece, measure_agreement
from kinshelf.probe.pages.report import reliability_values
from kinshelf.probe.predict.wording import freshness_lines, policy_line, track_record
from kinshelf.serve.base.errors import JobRunning, for_people, message_of
from kinshelf.serve.http.security import reader, writer
from kinshelf.serve.pages.desk import JOB as REVIEW
from kinshelf.serve.pages.filtering import category_rows, footer
from kinshelf.serve.pages.rendering import PageRoute, page, part, see, wants_part
from kinshelf.serve.pages.sheets import JOB as FILL

if TYPE_CHECKING:
    from kinshelf.probe.predict.predictor import Predictor
    from kinshelf.serve.service.jobs import Job
    from kinshelf.serve.service.service import Service

router = APIRouter(route_class=PageRoute, dependencies=[Depends(reader)])

CATEGORIES = 200
CHANGES = 12


@router.get("/dashboard")
async def dashboard(request: Request) -> Response:
    """All of it."""
    service = request.app.state.service
    return page(request, "dashboard.html", here="/dashboard", **await service.run(_all, service))


@router.get("/dashboard/train")
async def training(request: Request) -> Response:
    """The progress of the training."""
    service = request.app.state.service
    return part("_train.html", job=await service.run(_training, service), fresh=True)


@router.post("/dashboard/train", dependencies=[Depends(writer)])
async def train(request: Request, warm_start: Annotated[str, Form()] = "") -> Response:
    """Begin to train, unless somebody did already."""
    service = request.app.state.service
    with contextlib.suppress(JobRunning):
        await service.run(service.train, warm_start=bool(warm_start))  # it imports torch
    if not wants_part(request):
        return see(request, "/dashboard#train")
    return part("_train.html", job=_training(service), fresh=True)


@router.post("/dashboard/stop", dependencies=[Depends(writer)])
async def stop(request: Request, kind: Annotated[str, Form(max_length=20)] = "train") -> Response:
    """Let a job end at its next step; what it would have made is not made."""
    request.app.state.service.jobs.stop(kind)
    return see(request, {REVIEW: "/review", FILL: "/fill"}.get(kind, "/dashboard#train"))


def _all(service: Service) -> dict[str, Any]:
    info, now = service.info(), service.snapshot()
    since, policy = info["since_training"], info["policy"]
    try:
        predictor, problem = service.predictor(), None
    except (EmptyShelf, ProbeError, ShelfError) as error:
        predictor, problem = None, for_people(message_of(error))
    quality = predictor and _quality(predictor)
    if quality and policy:
        quality["lines"].append(f"The policy {policy_line(policy)}.")
    return {
        "info": info, "quality": quality, "warnings": [problem] if problem else [],
        "drift": since and freshness_lines(since), "job": _training(service),
        "categories": category_rows(now.view.categories(), CATEGORIES),
        "history": [_change(row) for row in service.shelf.history(CHANGES)],
        "shelf": footer(now, service.shelf.path.name),
    }  # fmt: skip


def _quality(predictor: Predictor) -> dict[str, Any] | None:
    """What is known of the probe from the products that it was calibrated by."""
    probe = predictor.probe
    if probe is None:
        return None
    found: dict[str, Any] = {
        "version": predictor.version, "trained_on": probe.trained_rows,
        "classes": len(probe.classes), "held_out": None, "lines": list(probe.warnings),
    }  # fmt: skip
    held = HeldOut.of(probe.reference)
    if held is not None and len(held):
        found["held_out"] = reliability_values(held.confidence, held.right) | {
            "name": "probe and neighbours", "colour": 2, "n": len(held),
            "accuracy": float(held.right.mean()), "ece": ece(held.confidence, held.right),
        }  # fmt: skip
        shares = measure_agreement(held.agree, held.right)
        for agreed, share in ((True, shares["agree"]), (False, shares["disagree"])):
            found["lines"].append(track_record(share["accuracy"], share["n"], agreed=agreed))
    return found


def _change(row: Mapping[str, Any]) -> dict[str, Any]:
    counts = [f"{row[n]} {n}" for n in ("inserted", "updated", "removed", "rejected") if row[n]]
    return {
        "generation": row["generation"],
        "time": row["time"],
        "what": row["command"] or row["kind"],
        "counts": ", ".join(counts) or "-",
    }


def _training(service: Service) -> dict[str, Any] | None:
    """The newest training job, in words."""
    job = next((job for job in service.jobs.list() if job.kind == "train"), None)
    if job is None:
        return None
    shown = {"running": job.state == "running", "error": None, "made": None, "words": ""}
    if job.state == "running":
        return shown | _step(job)
    if job.result is not None:
        rows, seconds = job.result["trained_rows"], job.result["seconds"]
        made = f"Probe {job.result['version']} is trained on {rows:,} products, in {seconds:.0f} s."
        return shown | {"made": made}
    error = for_people(job.error["message"]) if job.error else "The training was stopped."
    return shown | {"error": error}


def _step(job: Job) -> dict[str, Any]:
    event = job.events[-1] if job.events else {}
    if event.get("step") == "calibrate":
        done, parts = event["done"], event["parts"]
        return {"words": f"Calibrating, part {done} of {parts}", "done": done, "all": parts}
    if event.get("step") == "epoch":
        right = event["val_accuracy"]
        good = "" if right is None else f", {right:.1%} right on those set aside"
        return {"words": f"Training, epoch {event['epoch']}{good}", "done": 0, "all": 0}
    return {"words": "Training begins", "done": 0, "all": 0}
