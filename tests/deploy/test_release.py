"""Tests scripts/release-notes, scripts/release-archive and scripts/publish-image in a temporary project."""

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ("publish-image", "release-archive", "release-notes")
CHANGELOG = """\
# Changelog

## Unreleased

## 1.2.3 - 2026-01-31

### Added

- This one.

## 1.2.2 - 2026-01-01

### Added

- Another one.
"""
REPOSITORY = "ghcr.io/example/stream-manager"
# A fake docker that logs its arguments, and writes the output that the script reads.
FAKE_DOCKER = """\
#!/usr/bin/env bash
printf '%s\\n' "docker $*" >>"$LOG"
case $* in
    *--metadata-file*) printf '{"containerimage.digest": "sha256:one"}' >"$(sed 's/.*--metadata-file \\([^ ]*\\).*/\\1/' <<<"$*")" ;;
    *inspect*) printf '{"schemaVersion": 2, "digest": "sha256:joined"}' ;;
esac
"""


class Release(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        (self.folder / "scripts").mkdir()
        for name in SCRIPTS:
            shutil.copy(ROOT / "scripts" / name, self.folder / "scripts")
        for name in ("LICENSE-APACHE", "LICENSE-MIT", "README.md"):
            shutil.copy(ROOT / name, self.folder)
        (self.folder / "Cargo.toml").write_text('[package]\nname = "stream-manager"\nversion = "1.2.3"\n')
        (self.folder / "CHANGELOG.md").write_text(CHANGELOG)

    def run_script(self, name, *arguments, **settings):
        command = [self.folder / "scripts" / name, *arguments]
        return subprocess.run(command, env=os.environ | settings, capture_output=True, text=True)

    def assert_tag_rejected(self, reason, tag):
        process = self.run_script("release-notes", tag)
        self.assertNotEqual(process.returncode, 0)
        self.assertEqual(process.stdout, "")
        self.assertIn(reason, process.stderr)

    def test_release_notes_are_the_section_of_the_changelog(self):
        process = self.run_script("release-notes", "v1.2.3")
        self.assertEqual((process.returncode, process.stdout), (0, "### Added\n\n- This one.\n"), process.stderr)

    def test_tag_of_another_version_is_rejected(self):
        self.assert_tag_rejected("Cargo.toml has version 1.2.3", "v1.2.2")

    def test_malformed_tag_is_rejected(self):
        for tag in ("1.2.3", "v1.2", "v1.2.3;id", "v1.2.3\nv1.2.3", "v1.2.3+x"):
            self.assert_tag_rejected("must have the form", tag)

    def test_version_without_changelog_section_is_rejected(self):
        for section in ("## Unreleased", "## 1.2.3", "## 1.2.30 - 2026-01-31", "## 1x2.3 - 2026-01-31"):
            (self.folder / "CHANGELOG.md").write_text(CHANGELOG.replace("## 1.2.3 - 2026-01-31", section))
            self.assert_tag_rejected("must have exactly one section", "v1.2.3")

    def test_empty_changelog_section_is_rejected(self):
        (self.folder / "CHANGELOG.md").write_text(CHANGELOG.replace("- This one.", ""))
        self.assert_tag_rejected("has no entries", "v1.2.3")

    def create_archive(self, version, output):
        binary = self.folder / "binary"
        binary.write_text(f"#!/bin/sh\necho stream-manager {version}\n")
        binary.chmod(0o755)
        return self.run_script("release-archive", binary, self.folder / output, SOURCE_DATE_EPOCH="1700000000")

    def test_archive_is_reproducible(self):
        files = []
        for output in ("one", "two"):
            process = self.create_archive("1.2.3", output)
            self.assertEqual(process.returncode, 0, process.stderr)
            files.append(Path(process.stdout.strip()))
            # The archive must not depend on the modification times and modes of its source files.
            os.utime(self.folder / "README.md", (1, 1))
            (self.folder / "README.md").chmod(0o600)
        one, two = (hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
        self.assertEqual(one, two)

    def test_archive_has_binary_licences_and_documents(self):
        file = Path(self.create_archive("1.2.3", "archives").stdout.strip())
        name = file.name.removesuffix(".tar.gz")
        self.assertRegex(name, r"^stream-manager-1\.2\.3-linux-(amd64|arm64)$")
        with tarfile.open(file) as archive:
            members = {member.name: (member.mode, member.uid, member.mtime) for member in archive if member.isfile()}
        expected = {f"{name}/stream-manager": (0o755, 0, 1700000000)}
        for document in ("CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT", "README.md"):
            expected[f"{name}/{document}"] = (0o644, 0, 1700000000)
        self.assertEqual(members, expected)

    def test_binary_of_another_version_is_rejected(self):
        process = self.create_archive("1.2.2", "archives")
        self.assertNotEqual(process.returncode, 0)
        self.assertIn("Cargo.toml has version 1.2.3", process.stderr)

    def publish(self, *arguments):
        """Runs scripts/publish-image in a new git repository, and returns its output and the calls of docker."""
        (self.folder / "docker").write_text(FAKE_DOCKER)
        (self.folder / "docker").chmod(0o755)
        git = ["git", "-C", self.folder, "-c", "user.name=test", "-c", "user.email=test"]
        subprocess.run([*git, "init", "--quiet"], check=True)
        time = {"GIT_AUTHOR_DATE": "1700000000 +0000", "GIT_COMMITTER_DATE": "1700000000 +0000"}
        subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message=one"], check=True, env=os.environ | time)
        log = self.folder / "log"
        path = f"{self.folder}:{os.environ['PATH']}"
        process = self.run_script("publish-image", *arguments, PATH=path, LOG=str(log))
        self.assertEqual(process.returncode, 0, process.stderr)
        return process.stdout.strip(), log.read_text().splitlines()

    def test_build_pushes_by_digest_with_the_time_of_the_commit(self):
        digest, [build] = self.publish("build", REPOSITORY, "1.2.3")
        self.assertEqual(digest, "sha256:one")
        for option in (
            "--provenance mode=max",
            "--build-arg VERSION=1.2.3",
            "--build-arg CREATED=2023-11-14T22:13:20Z",
            f"name={REPOSITORY},push-by-digest=true",
        ):
            self.assertIn(option, build)
        self.assertNotIn(f"{REPOSITORY}:", build)

    def test_join_tags_the_images_of_all_architectures(self):
        digest, calls = self.publish("join", REPOSITORY, "1.2.3", "sha256:one", "sha256:two")
        self.assertEqual(digest, "sha256:joined")
        images = f"{REPOSITORY}@sha256:one {REPOSITORY}@sha256:two"
        self.assertEqual(calls[0], f"docker buildx imagetools create --tag {REPOSITORY}:1.2.3 {images}")


if __name__ == "__main__":
    unittest.main()
