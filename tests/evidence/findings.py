"""The list of what an attack has found, which several attacks share. This file is no attack itself."""

findings: list[str] = []


def check(held: bool, where: str, what: object) -> None:
    if not held:
        findings.append(where)
        print(f"FOUND {where}: {what}", flush=True)
