"""Prints the table of suites under pytest's own summary."""

from tests.closing.test_suites import label, results
from tests.suites.results import COUNTS


def pytest_terminal_summary(terminalreporter):
    terminalreporter.section("all suites")
    for result in results():
        budget = "no budget" if result.budget_s is None else f"budget {result.budget_s:.0f} s"
        cpu = f"CPU {result.cpu_s:.0f} s, {budget}"
        if result.is_past_budget():
            cpu += ", PAST ITS BUDGET"
        setup = f" + {result.setup_cpu_s:.0f} s for its environment" if result.setup_cpu_s >= 1 else ""
        terminalreporter.write_line(f"{label(result)} ({cpu}{setup}; {result.wall_s:.0f} s) {result.reason}".rstrip())
    totals = [f"{sum(result.counts[name] for result in results())} {name}" for name in COUNTS]
    cpu_minutes = sum(result.cpu_s + result.setup_cpu_s for result in results()) / 60
    terminalreporter.write_line(f"total: {', '.join(totals)}; CPU {cpu_minutes:.1f} min")
