"""Tests `scripts/deny advisories` with small advisory databases. Requires cargo-deny."""

import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATE = "2026-01-31"

# The format of the RustSec database.
ADVISORY = """\
```toml
[advisory]
id = "RUSTSEC-2026-9999"
package = "{package}"
date = "{date}"

[versions]
patched = []
```

# A vulnerability for a test

Affects every version.
"""


def git(folder, *arguments):
    identity = {"NAME": "test", "EMAIL": "test@localhost", "DATE": f"{DATE}T12:00:00Z"}
    variables = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in identity.items()}
    subprocess.run(["git", "-C", folder, *arguments], env=os.environ | variables, check=True, capture_output=True)


def run_script(**variables):
    environment = {name: value for name, value in os.environ.items() if name != "ADVISORY_DB"} | variables
    return subprocess.run([ROOT / "scripts/deny", "advisories"], env=environment, capture_output=True, text=True)


class Advisories(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.database = Path(temporary.name)
        # Later runs must not use the database of a test.
        self.addCleanup(shutil.rmtree, ROOT / "target/advisory-db", ignore_errors=True)

    def check(self, package):
        """Returns the result of the check with a database that has one advisory."""
        file = self.database / "crates" / package / "RUSTSEC-2026-9999.md"
        file.parent.mkdir(parents=True)
        file.write_text(ADVISORY.format(package=package, date=DATE))
        git(self.database, "init", "--quiet", "--initial-branch=main")
        git(self.database, "add", ".")
        git(self.database, "commit", "--quiet", "--message=advisory")
        return run_script(ADVISORY_DB=str(self.database))

    def test_an_advisory_for_a_dependency_fails(self):
        result = self.check("poem")
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertNotIn("advisories: checked", result.stdout)
        self.assertIn("RUSTSEC-2026-9999", result.stdout + result.stderr)

    def test_the_last_line_contains_the_date_of_the_database(self):
        result = self.check("not-a-dependency")
        self.assertEqual(result.returncode, 0, result.stderr)
        last_line = result.stdout.splitlines()[-1]
        self.assertEqual(last_line, f"advisories: checked with the database of {DATE} ({self.database})")

    def test_an_unreachable_database_of_the_setting_fails(self):
        result = run_script(ADVISORY_DB=str(self.database / "absent"))
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn("NOT CHECKED", result.stdout.splitlines()[-1])

    def test_an_unreachable_default_database_has_its_own_exit_code(self):
        replaced = {"COUNT": "1", "KEY_0": f"url.{self.database}/absent.insteadOf", "VALUE_0": "https://github.com/rustsec/advisory-db"}
        result = run_script(**{f"GIT_CONFIG_{name}": value for name, value in replaced.items()})
        self.assertEqual(result.returncode, 75, result.stderr)
        self.assertIn("NOT CHECKED", result.stdout.splitlines()[-1])


if __name__ == "__main__":
    unittest.main()
