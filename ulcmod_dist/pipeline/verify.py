"""``ulcmod verify`` and ``ulcmod gc``: check the store, and list its orphaned objects."""

from ulcmod_dist.pipeline.context import Context, writing
from ulcmod_dist.pipeline.summary import Summary, format_bytes
from ulcmod_dist.runtime.progress import track
from ulcmod_dist.store.verify import Orphan, delete_orphans, find_orphans
from ulcmod_dist.store.verify import verify as verify_store


def verify(context: Context) -> Summary:
    """Read every committed byte again and compare its checksum; exit code 1 where one is wrong."""
    with track(context.on_progress, "Verifying", None, "bytes") as step:
        seen = verify_store(context.run, lambda done: step.update(done))
    return Summary(
        title="Damage",
        columns={"key": "Key", "problem": "Problem"},
        rows=[{"key": found.key, "problem": found.problem} for found in seen.findings],
        facts={"objects": seen.objects, "read": format_bytes(seen.bytes)},
        data={"objects": seen.objects, "bytes": seen.bytes},
        closing=[] if seen.findings else ["All as written."],
        exit_code=1 if seen.findings else 0,
    )


def gc(context: Context, *, dry_run: bool) -> Summary:
    """Remove or list what no commit and no manifest names, such as a killed attempt's rest."""
    if dry_run:
        return _summarize_orphans(find_orphans(context.run), "Would be removed")
    with writing(context, "gc") as held:
        found = find_orphans(held.run)
        delete_orphans(held.run, found)
    return _summarize_orphans(found, "Removed")


def _summarize_orphans(found: list[Orphan], title: str) -> Summary:
    total = sum(entry.size for entry in found)
    return Summary(
        title=title,
        columns={"key": "Key", "size": "Bytes"},
        rows=[{"key": entry.key, "size": entry.size} for entry in found],
        facts={"objects": len(found), "size": format_bytes(total)},
        data={"objects": len(found), "bytes": total},
    )
