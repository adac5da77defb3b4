"""Renders a record that `floodgate bench`, `floodgate bench scale` or `floodgate faults` has written: `python -m
bench.report RESULT.json --html FILE --svg FOLDER`; without either it prints the tables in Markdown.
"""

from pathlib import Path

import click

from bench.report import files

TARGET = click.Path(path_type=Path)


@click.command()
@click.argument("record", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--html", type=TARGET, help="Write the page.")
@click.option("--svg", type=TARGET, help="Write the charts into this folder.")
def main(record: Path, html: Path | None, svg: Path | None) -> None:
    """Render a record of a benchmark."""
    if html and files.is_of_faults(record):
        raise click.UsageError("a record of faults has no page: --svg draws its chart")
    if html:
        html.write_text(files.html(record))
    if svg:
        svg.mkdir(parents=True, exist_ok=True)
        for name, drawn in files.svgs(record).items():
            (svg / name).write_text(drawn)
    if not html and not svg:
        click.echo(files.markdown(record))


if __name__ == "__main__":
    main(prog_name="python -m bench.report")
