"""scripts/release-notes, scripts/release-archive and scripts/publish-image, in a folder with a version of its own."""

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
# Says what it was asked, and answers as the real one would where something is read from it.
DOCKER = """\
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

    def run_script(self, name, *words, **settings):
        command = [self.folder / "scripts" / name, *words]
        return subprocess.run(command, env=os.environ | settings, capture_output=True, text=True)

    def refused(self, why, tag):
        done = self.run_script("release-notes", tag)
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(done.stdout, "")
        self.assertIn(why, done.stderr)

    def test_a_releases_notes_are_its_section_of_the_changelog(self):
        done = self.run_script("release-notes", "v1.2.3")
        self.assertEqual((done.returncode, done.stdout), (0, "### Added\n\n- This one.\n"), done.stderr)

    def test_a_tag_that_is_not_the_versions_is_refused(self):
        self.refused("Cargo.toml has version 1.2.3", "v1.2.2")
        for tag in ("1.2.3", "v1.2", "v1.2.3;id", "v1.2.3\nv1.2.3", "v1.2.3+x"):
            self.refused("tag is like", tag)

    def test_a_version_without_a_section_in_the_changelog_is_refused(self):
        for section in ("## Unreleased", "## 1.2.3", "## 1.2.30 - 2026-01-31", "## 1x2.3 - 2026-01-31"):
            (self.folder / "CHANGELOG.md").write_text(CHANGELOG.replace("## 1.2.3 - 2026-01-31", section))
            self.refused("needs one section", "v1.2.3")
        (self.folder / "CHANGELOG.md").write_text(CHANGELOG.replace("- This one.", ""))
        self.refused("says nothing", "v1.2.3")

    def archive(self, version, into):
        binary = self.folder / "binary"
        binary.write_text(f"#!/bin/sh\necho stream-manager {version}\n")
        binary.chmod(0o755)
        return self.run_script("release-archive", binary, self.folder / into, SOURCE_DATE_EPOCH="1700000000")

    def test_an_archive_is_the_same_to_the_byte_when_it_is_made_again(self):
        files = []
        for into in ("one", "two"):
            done = self.archive("1.2.3", into)
            self.assertEqual(done.returncode, 0, done.stderr)
            files.append(Path(done.stdout.strip()))
            # Neither the time of the file nor who may read it goes in.
            os.utime(self.folder / "README.md", (1, 1))
            (self.folder / "README.md").chmod(0o600)
        one, two = (hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
        self.assertEqual(one, two)
        name = files[0].name.removesuffix(".tar.gz")
        self.assertRegex(name, r"^stream-manager-1\.2\.3-linux-(amd64|arm64)$")
        with tarfile.open(files[0]) as packed:
            inside = {member.name: (member.mode, member.uid, member.mtime) for member in packed if member.isfile()}
        licences = [f"{name}/{file}" for file in ("CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT", "README.md")]
        self.assertEqual(inside, {f"{name}/stream-manager": (0o755, 0, 1700000000)} | {file: (0o644, 0, 1700000000) for file in licences})

    def test_a_binary_of_another_version_is_not_packed(self):
        done = self.archive("1.2.2", "one")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("Cargo.toml has version 1.2.3", done.stderr)

    def publish(self, *words):
        (self.folder / "docker").write_text(DOCKER)
        (self.folder / "docker").chmod(0o755)
        git = ["git", "-C", self.folder, "-c", "user.name=test", "-c", "user.email=test"]
        subprocess.run([*git, "init", "--quiet"], check=True)
        time = {"GIT_AUTHOR_DATE": "1700000000 +0000", "GIT_COMMITTER_DATE": "1700000000 +0000"}
        subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message=one"], check=True, env=os.environ | time)
        log = self.folder / "log"
        path = f"{self.folder}:{os.environ['PATH']}"
        done = self.run_script("publish-image", *words, PATH=path, LOG=str(log))
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.strip(), log.read_text().splitlines()

    def test_an_image_is_pushed_by_digest_with_times_of_the_commit(self):
        digest, [build] = self.publish("build", REPOSITORY, "1.2.3")
        self.assertEqual(digest, "sha256:one")
        for wanted in (
            "--provenance mode=max",
            "--build-arg VERSION=1.2.3",
            "--build-arg CREATED=2023-11-14T22:13:20Z",
            f"name={REPOSITORY},push-by-digest=true",
        ):
            self.assertIn(wanted, build)
        self.assertNotIn(f"{REPOSITORY}:", build)

    def test_the_images_of_all_architectures_get_one_name(self):
        digest, asked = self.publish("join", REPOSITORY, "1.2.3", "sha256:one", "sha256:two")
        self.assertEqual(digest, "sha256:joined")
        images = f"{REPOSITORY}@sha256:one {REPOSITORY}@sha256:two"
        self.assertEqual(asked[0], f"docker buildx imagetools create --tag {REPOSITORY}:1.2.3 {images}")


if __name__ == "__main__":
    unittest.main()
