# Aggregation: from a study's result files to its tables, and from the tables to its figures.
#
# Inputs:  results/<study>/recipes.csv, benchmarks.csv, methods.csv, checkpoints.csv, choices.csv; `study_results`, which stand when every
#          evaluation results/evals/<recipe_id>/<task>-<evaluation_id>.json (and .parquet: its items) and
#          every merge report results/merges/<recipe_id>.json of the study stands; results/items
#          (<evaluation_id>.parquet: what all models were asked); results/<study>/inspect and geometry
# Outputs: results/<study>/tables: tidy CSV and Parquet files, and Tables 1-3 also as LaTeX and Markdown
#          (published_comparison: our Tables 1-3 beside those that the study names as `published`)
#          results/<study>/figures: every figure as SVG, PDF and PNG
# Steps:   aggregate reads all results once; figures reads the tables only
#
# The names of the figures depend on the study (one per base and grid), so their output is a folder.

TABLES = f"{RESULTS}/{STUDY.name}/tables"
FIGURES = f"{RESULTS}/{STUDY.name}/figures"
TIDY_TABLES = [
    "comparisons",
    "scores",
    "models",
    "curves",
    "benchmark_curves",
    "experts",
    "benchmarks",
    "inspection",
    "geometry",
    "cosines",
    "predictors",
    "methods",
    "checkpoints",
    "missing",
    "remarks",
    "provenance",
    "published_comparison",
]
PAPER_TABLES = ["table1", "table2", "table3"]


rule aggregate:
    input:
        study_results,
        inspected,
        measured,
        published=STUDY.published or [],
        recipes=f"{RESULTS}/{STUDY.name}/recipes.csv",
        benchmarks=f"{RESULTS}/{STUDY.name}/benchmarks.csv",
        methods=f"{RESULTS}/{STUDY.name}/methods.csv",
        checkpoints=f"{RESULTS}/{STUDY.name}/checkpoints.csv",
        choices=f"{RESULTS}/{STUDY.name}/choices.csv",
    output:
        csv=expand(f"{TABLES}/{{name}}.csv", name=TIDY_TABLES + PAPER_TABLES),
        parquet=expand(f"{TABLES}/{{name}}.parquet", name=TIDY_TABLES + PAPER_TABLES),
        tex=expand(f"{TABLES}/{{name}}.tex", name=PAPER_TABLES),
        markdown=expand(
            f"{TABLES}/{{name}}.md", name=PAPER_TABLES + ["published_comparison"]
        ),
    params:
        study=STUDY.name,
        results=RESULTS,
        published=["--published", STUDY.published] if STUDY.published else [],
    message:
        "Make the tables of {params.study}"
    shell:
        "wildmerge aggregate --study {params.study:q} --results {params.results:q} "
        "{params.published:q}"


rule figures:
    input:
        rules.aggregate.output.csv,
    output:
        directory(FIGURES),
    params:
        tables=TABLES,
    message:
        "Draw the figures"
    shell:
        "wildmerge figures {params.tables:q} --out {output:q}"
