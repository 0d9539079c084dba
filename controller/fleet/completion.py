"""Scripts by which bash and zsh complete `paragone`, made of the parser itself.

They complete in the shell: starting Python at each press of the tab key would be felt.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator

_BASH = """\
# bash completion of paragone: eval "$(paragone completion bash)"
_paragone() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}}
    local path="" word words="" files=""
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case "$path $word" in
{nested}
        esac
    done
    case "$path $previous" in
{values}
    esac
    if [[ -z $words ]]; then
        case "$path" in
{words}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$current"))
    if [[ $current != -* && -n $files ]]; then
        COMPREPLY+=($(compgen -f -- "$current"))
    fi
}}
complete -o filenames -F _paragone paragone
"""

# zsh runs bash's completions itself; `compinit` once for shells that have not.
_ZSH = """\
# zsh completion of paragone: eval "$(paragone completion zsh)"
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
autoload -Uz bashcompinit && bashcompinit
"""


def completion_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """What a shell evaluates to complete a command line.

    Args:
        parser: the command line.
        shell: bash or zsh.
    """
    nested, values, words = [], [], []
    for path, each in _parsers(parser, ""):
        subcommands = _subcommands(each)
        options = [option for action in _actions(each) for option in action.option_strings]
        nested += [
            _case(f"{path} {name}", f"path={shlex.quote(f'{path} {name}')}") for name in subcommands
        ]
        values += [
            _case(f"{path} {option}", f"words={shlex.quote(' '.join(map(str, action.choices)))}")
            for action in _actions(each)
            if action.choices is not None
            for option in action.option_strings
        ]
        candidates = [*subcommands, *options]
        candidates += [
            str(choice)
            for action in _actions(each)
            if not action.option_strings and not _is_subcommands(action)
            for choice in action.choices or ()
        ]
        takes_files = not subcommands
        words.append(
            _case(
                path,
                f"words={shlex.quote(' '.join(candidates))}" + ("; files=1" if takes_files else ""),
            )
        )
    script = _BASH.format(
        nested="\n".join(nested), values="\n".join(values), words="\n".join(words)
    )
    return script if shell == "bash" else _ZSH + script


def _case(pattern: str, commands: str) -> str:
    return f"            {shlex.quote(pattern)}) {commands} ;;"


def _parsers(
    parser: argparse.ArgumentParser, path: str
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield path, parser
    for name, child in _subcommands(parser).items():
        yield from _parsers(child, f"{path} {name}")


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return parser._actions  # noqa: SLF001 - argparse has no other list of them


def _is_subcommands(action: argparse.Action) -> bool:
    return isinstance(action, argparse._SubParsersAction)  # noqa: SLF001 - it has no other name


def _subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    found: dict[str, argparse.ArgumentParser] = {}
    for action in _actions(parser):
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - as above
            found |= action.choices
    return found
