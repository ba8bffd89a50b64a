"""`python -m premortem.agent`: the command without its entry point."""

from premortem.agent.cli import main

main()
