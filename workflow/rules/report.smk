# The study for readers: executed notebooks and one self-contained HTML report.
#
# Inputs:  results/<study>/tables (rule aggregate), results/<study>/figures (rule figures),
#          notebooks/*.ipynb (sources, without outputs)
# Outputs: results/<study>/notebooks/*.ipynb (executed), results/<study>/report.html
# Steps:   both read the tables only; the report puts the SVG figures into its page
#
# Where models failed, nothing of this runs as a rule: a rule has all of its inputs. `show_gaps` then makes
# the same of what is there below results/<study>/incomplete, and the tables and the report show what is not.
# Under the final names they would count as made, and the failed models would never be made again.

import subprocess

NOTEBOOKS = (
    "01_does_it_help",
    "02_which_method",
    "03_why",
    "04_hyperparameters",
    "05_beside_the_paper",
)
REPORT = f"{RESULTS}/{STUDY.name}/report.html"
INCOMPLETE = f"{OUT}/incomplete"


def show_gaps():
    """Make tables, figures, notebooks and report of a study in which models failed."""
    if not any(Path(OUT).glob("status/*.json")):
        return
    print(f"Some models failed; the others are in {INCOMPLETE}:", file=sys.stderr)
    published = ["--published", STUDY.published] if STUDY.published else []
    title = ["--title", STUDY.title] if STUDY.title else []
    sources = Path(workflow.basedir) / "notebooks"
    tables, drawn = f"{INCOMPLETE}/tables", f"{INCOMPLETE}/figures"
    beside = ["--figures", drawn, "--out", f"{INCOMPLETE}/report.html", *title]
    for command in (
        [
            *("aggregate", "--study", STUDY.name, "--results", RESULTS),
            *("--out", tables, *published),
        ],
        ["figures", tables, "--out", drawn],
        *(
            [
                *("notebook", sources / f"{name}.ipynb", tables),
                *("--out", f"{INCOMPLETE}/notebooks/{name}.ipynb"),
            ]
            for name in NOTEBOOKS
        ),
        ["report", tables, "--study", STUDY.name, *beside],
    ):
        if subprocess.run(["wildmerge", *map(str, command)], check=False).returncode:
            return


def clean_up():
    """Remove what runs left that failed or were killed, when all jobs are done: no job needs it."""
    if all(os.path.exists(f"{JOBS}/{job}.json") for job in study_jobs()):
        for folder in (INCOMPLETE, f"{OUT}/spectra"):
            shutil.rmtree(folder, ignore_errors=True)


rule notebook:
    input:
        rules.aggregate.output.csv,
        source=f"{workflow.basedir}/notebooks/{{name}}.ipynb",
    output:
        f"{RESULTS}/{STUDY.name}/notebooks/{{name}}.ipynb",
    log:
        f"{OUT}/logs/notebook-{{name}}.log",
    wildcard_constraints:
        name="|".join(NOTEBOOKS),
    params:
        tables=TABLES,
    message:
        "Execute the notebook {wildcards.name}"
    shell:
        "wildmerge notebook {input.source:q} {params.tables:q} --out {output:q} &> {log:q}"


rule report:
    input:
        rules.aggregate.output.csv,
        figures=rules.figures.output[0],
    output:
        REPORT,
    params:
        tables=TABLES,
        study=STUDY.name,
        title=["--title", STUDY.title] if STUDY.title else [],
    message:
        "Write the report"
    shell:
        "wildmerge report {params.tables:q} --figures {input.figures:q} --out {output:q} "
        "--study {params.study:q} {params.title:q}"
