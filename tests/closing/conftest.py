"""Prints the table of suites under pytest's own summary."""

from tests.closing.test_suites import label, results


def pytest_terminal_summary(terminalreporter):
    found = results()
    terminalreporter.section("all suites")
    for result in found:
        terminalreporter.write_line(f"{label(result)} in {result['seconds']:.0f} s {result['reason']}")
    total = {name: sum(result["counts"][name] for result in found) for name in ("passed", "failed", "skipped")}
    terminalreporter.write_line("total: " + ", ".join(f"{count} {name}" for name, count in total.items()))
