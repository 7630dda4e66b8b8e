"""Which files are in the wheel; all else stands in pyproject.toml.

The tables, records and pictures of `data/` that the package reads come along as `cnnlib/book`, where
`cnnlib.data.book_file` finds them.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["cnnlib*"]), "cnnlib.book"],
    package_dir={"cnnlib.book": "data"},
    package_data={
        "cnnlib": ["py.typed", "house.mplstyle", "widgets/static/*"],
        "cnnlib.book": ["README.md", "*.csv", "published/*.csv", "results/*.json", "images/*"],
    },
    include_package_data=False,
)
