"""What an attack has found, printed as it is found; no attack itself."""

findings: list[str] = []


def check(held: bool, where: str, what: object) -> None:
    if not held:
        findings.append(where)
        print(f"FOUND {where}: {what}", flush=True)
