"""`rkzoo completion`: the script that completes rkzoo's words in a shell, made of the parser.

The script is text without a call of rkzoo, so that Tab answers at once; the names of models and
chips are those of the moment.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from shlex import quote
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rkzoo.cli.arguments import Argument, Command

_INSTALL = {
    "bash": "mkdir -p ~/.local/share/bash-completion/completions\n"
    "rkzoo completion bash > ~/.local/share/bash-completion/completions/rkzoo",
    "zsh": "mkdir -p ~/.zfunc\n"
    "rkzoo completion zsh > ~/.zfunc/_rkzoo\n"
    "and in ~/.zshrc: fpath+=~/.zfunc; autoload -Uz compinit; compinit",
    "fish": "rkzoo completion fish > ~/.config/fish/completions/rkzoo.fish",
}


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "completion",
        help="print the script for completion in bash, zsh or fish",
        description="Prints the script that completes verbs, options, models, chips and files. "
        "Its first lines say how it is installed; make it again after an upgrade.",
        epilog="Example: rkzoo completion bash",
    )
    parser.add_argument("shell", metavar="SHELL", choices=tuple(_INSTALL), help="bash, zsh or fish")
    parser.set_defaults(verb=main)


def main(args: argparse.Namespace) -> int:
    from rkzoo.cli.arguments import commands
    from rkzoo.cli.parser import VERBS, build_parser
    from rkzoo.soc.chips import chips
    from rkzoo.zoo.catalogue import names

    every = commands(build_parser(VERBS))
    script = {"bash": _bash, "zsh": _zsh, "fish": _fish}[args.shell]
    if args.shell == "zsh":
        print("#compdef rkzoo")
    print("# Completion of rkzoo, made by: rkzoo completion", args.shell)
    print("# To install it:")
    print("\n".join(f"#   {line}" for line in _INSTALL[args.shell].splitlines()))
    print("\n".join(script(every, names(), tuple(chips()))))
    return 0


# ---- bash -----------------------------------------------------------------------------

_BASH = """
_rkzoo() {
    local cur=${COMP_WORDS[COMP_CWORD]} command= place=0 option= since=0 kind many words options
    local word i IFS=$' \\t\\n'
    [[ $cur == "=" ]] && cur=
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        _rkzoo_value "$command" "$option"
        if [[ $word == "=" ]]; then
            continue
        elif [[ $word == -* ]]; then
            option=$word since=0
        elif [[ $kind && ($since == 0 || $many) ]]; then
            since=1
        elif ((place == 0)) && _rkzoo_command "${command:+$command }$word"; then
            command="${command:+$command }$word" option=
        else
            place=$((place + 1))
        fi
    done
    _rkzoo_value "$command" "$option"
    if [[ ! $kind || ($since != 0 && ! $many) ]]; then
        _rkzoo_place "$command" "$place"
    fi
    _rkzoo_options "$command"
    if [[ $cur == -* ]]; then
        kind=words words=$options
    fi
    case $kind in
        words) COMPREPLY=($(compgen -W "$words" -- "$cur")) ;;
        chip) COMPREPLY=($(compgen -W "$_rkzoo_chips" -- "$cur")) ;;
        model | file)
            compopt -o filenames 2>/dev/null
            local IFS=$'\\n'
            COMPREPLY=($(compgen -f -- "$cur"))
            if [[ $kind == model ]]; then
                COMPREPLY+=($(IFS=' ' && compgen -W "$_rkzoo_models" -- "$cur"))
            fi
            ;;
    esac
}
complete -F _rkzoo rkzoo"""


def _bash(every: Sequence[Command], models: Sequence[str], chips: Sequence[str]) -> Iterator[str]:
    yield f"_rkzoo_models={quote(' '.join(models))}"
    yield f"_rkzoo_chips={quote(' '.join(chips))}"
    yield "_rkzoo_command() {"
    yield "    case $1 in"
    yield f"        {' | '.join(quote(' '.join(c.path)) for c in every if c.path)}) ;;"
    yield "        *) return 1 ;;\n    esac\n}"
    yield "_rkzoo_value() {  # what the option of a command takes"
    yield "    kind= many= words="
    values = {
        f"{' '.join(command.path)}:{name}": argument
        for command in every
        for argument in command.arguments
        for name in argument.options
        if argument.metavar
    }
    yield from _cases('"$1:$2"', values)
    yield "}"
    yield "_rkzoo_place() {  # what stands in a place of a command"
    yield "    kind= many= words="
    places: dict[str, Argument | tuple[str, ...]] = {}
    for command in every:
        name = " ".join(command.path)
        if command.below:
            places[f"{name}:0"] = tuple(command.below)
        for place, argument in enumerate(a for a in command.arguments if not a.options):
            places[f"{name}:{'*' if argument.many else place}"] = argument
    yield from _cases('"$1:$2"', places)
    yield "}"
    yield "_rkzoo_options() {"
    yield "    case $1 in"
    for command in every:
        options = [name for argument in command.arguments for name in argument.options]
        yield f"        {quote(' '.join(command.path))}) options={quote(' '.join(options))} ;;"
    yield "    esac\n}"
    yield _BASH.lstrip("\n")


def _cases(what: str, values: Mapping[str, Argument | tuple[str, ...]]) -> Iterator[str]:
    arms: dict[str, list[str]] = {}
    for name, value in values.items():
        if isinstance(value, tuple):
            sets = f"kind=words words={quote(' '.join(value))}"
        else:
            sets = f"kind={value.kind}" + (" many=1" if value.many else "")
            sets += f" words={quote(' '.join(value.words))}" if value.words else ""
        pattern = f"{quote(name[:-1])}*" if name.endswith(":*") else quote(name)
        arms.setdefault(sets, []).append(pattern)
    yield f"    case {what} in"
    for sets, patterns in arms.items():
        yield f"        {' | '.join(patterns)}) {sets} ;;"
    yield "    esac"


# ---- zsh ------------------------------------------------------------------------------


def _zsh(every: Sequence[Command], models: Sequence[str], chips: Sequence[str]) -> Iterator[str]:
    yield f"_rkzoo_chips=({' '.join(map(quote, chips))})"
    yield f"_rkzoo_models=({' '.join(map(quote, models))})"
    yield "_rkzoo_model() {"
    yield "    _alternative 'models:model:($_rkzoo_models)' 'files:file:_files'\n}"
    yield "_rkzoo() {"
    yield "    local -a below"
    # The longest path first: "report zoo" before "report".
    for command in sorted(every, key=lambda command: -len(command.path)):
        depth = len(command.path)
        name = " ".join(command.path)
        condition = f'"${{words[2,{depth + 1}]}}" == {quote(name)} && CURRENT -gt {depth + 1}'
        yield f"    if [[ {condition} ]]; then" if depth else "    if true; then"
        if command.below:
            yield "        below=("
            for word, text in command.below.items():
                yield f"            {quote(word + ':' + text.replace(':', ' '))}"
            yield "        )"
            yield f"        if (( CURRENT == {depth + 2} )) && [[ $PREFIX != -* ]]; then"
            yield f"            _describe {quote(name or 'verb')} below; return"
            yield "        fi"
        if depth:
            yield f"        shift {depth} words; (( CURRENT -= {depth} ))"
        yield "        _arguments -S \\"
        specs = [spec for argument in command.arguments for spec in _zsh_specs(argument)]
        yield " \\\n".join(f"            {quote(spec)}" for spec in specs)
        yield "        return\n    fi"
    yield "}"
    yield 'if [[ $funcstack[1] == _rkzoo ]]; then _rkzoo "$@"; else compdef _rkzoo rkzoo; fi'


def _zsh_specs(argument: Argument) -> Iterator[str]:
    actions = {
        "words": f"({' '.join(argument.words)})",
        "chip": "($_rkzoo_chips)",
        "model": "_rkzoo_model",
        "file": "_files",
        "free": " ",
    }
    value = f"{_zsh_text(argument.metavar)}:{actions[argument.kind]}"
    if not argument.options:
        yield ("*:" if argument.many else ":" + (":" if argument.optional else "")) + value
    for name in argument.options:
        takes = ""
        if argument.metavar:
            takes = f":*-*:{value}" if argument.many else f":{value}"
        yield f"*{name}[{_zsh_text(argument.help)}]{takes}"


def _zsh_text(text: str) -> str:
    for sign in ("\\", "[", "]", ":"):
        text = text.replace(sign, "\\" + sign)
    return text


# ---- fish -----------------------------------------------------------------------------

_FISH = """function __rkzoo_in
    set -l words (commandline -opc)
    set -e words[1]
    test $argv[1] -eq 0; or test "$words[1..$argv[1]]" = "$argv[2]"
end
function __rkzoo_at
    set -l words (commandline -opc)
    test (count $words) -eq (math $argv[1] + 1); and __rkzoo_in $argv
end
complete -c rkzoo -f"""


def _fish(every: Sequence[Command], models: Sequence[str], chips: Sequence[str]) -> Iterator[str]:
    yield _FISH
    values = {"model": " ".join(models), "chip": " ".join(chips)}
    for command in every:
        here = f"{len(command.path)} {quote(' '.join(command.path))}"
        # Of rkzoo itself nothing belongs to a verb too.
        inside = f"__rkzoo_in {here}" if command.path else "__rkzoo_at 0 ''"
        for word, text in command.below.items():
            yield _fish_line(f"__rkzoo_at {here}", ["-a", quote(word)], text)
        for argument in command.arguments:
            words = values.get(argument.kind, " ".join(argument.words))
            takes = ["-a", quote(words)] if words else []
            if not argument.options:
                if argument.kind in ("model", "file"):
                    takes.append("-F")
                if takes:
                    yield _fish_line(inside, takes, argument.help)
                continue
            names = [
                part
                for name in argument.options
                for part in (("-l", name[2:]) if name.startswith("--") else ("-s", name[1:]))
            ]
            if argument.metavar:
                names += ["-r", "-F"] if argument.kind in ("model", "file") else ["-x"]
            yield _fish_line(inside, [*names, *takes], argument.help)


def _fish_line(condition: str, parts: Iterable[str], text: str) -> str:
    return f"complete -c rkzoo -n {_fish_quote(condition)} {' '.join(parts)} -d {_fish_quote(text)}"


def _fish_quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
