"""Tests scripts/deploy with fakes of the AWS CLI (fake_aws.py), docker and the end-to-end collection.

With AWS=FOLDER the tests use the real AWS CLI in that folder, against the AWS emulator at AWS_ENDPOINT_URL. MiniStack works. Moto does
not work, because it shows the values of NoEcho parameters and rejects an update without changes.
"""

import json
import os
import shutil
import subprocess
import tempfile
import unittest
import uuid
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEPLOY = HERE.parents[1] / "scripts/deploy"
REPOSITORY = "ghcr.io/example/stream-manager"
REGISTRY = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
ECR = f"{REGISTRY}/video/stream-manager"
DIGESTS = [f"sha256:{digit * 64}" for digit in "123"]
RELEASED = [f"{REPOSITORY}@{digest}" for digest in DIGESTS]
IMAGES = [f"{ECR}@{digest}" for digest in DIGESTS]

TEMPLATE = """\
Description: VERSION
Parameters:
  Image: {Type: String}
  TableName: {Type: String, Default: user-streams}
  Tasks: {Type: String, Default: 2}
  StartsPerMinute: {Type: String, Default: 10}
  Hidden: {Type: String, NoEcho: true, Default: secret}
Resources:
  Service: {Type: "AWS::SNS::Topic", Properties: {DisplayName: !Ref Image}}
Outputs:
  Url: {Value: https://service.invalid}
"""
# A fake program that appends its arguments to $LOG. If the file fail-NAME exists, it removes the file and exits with the code in it.
FAKE_PROGRAM = """\
#!/usr/bin/env bash
cat >/dev/null
command=NAME
if [[ $command == docker ]]; then command+=-$1; else set -- "$@" "${STARTS_PER_MINUTE:-}"; fi
printf '%s\\n' "NAME $*" >>"$LOG"
[[ ! -e $FOLDER/fail-$command ]] || { code=$(<"$FOLDER/fail-$command"); rm "$FOLDER/fail-$command"; exit "$code"; }
"""
SMOKE_TEST_CALL = "smoke https://service.invalid 10"


class Deploy(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        programs = self.folder / "bin"
        programs.mkdir()
        for name in ("docker", "smoke"):
            (programs / name).write_text(FAKE_PROGRAM.replace("NAME", name))
            (programs / name).chmod(0o755)
        if "AWS" not in os.environ:
            (programs / "aws").symlink_to(HERE / "fake_aws.py")
        self.log = self.folder / "log"
        self.environment = os.environ | {
            "PATH": f"{programs}:{os.environ.get('AWS', '')}:{os.environ['PATH']}",
            "STACKS": str(self.folder / "stacks.json"),
            "FOLDER": str(self.folder),
            "LOG": str(self.log),
            "TEMPLATES": str(self.folder),
            "SMOKE_TEST": "smoke",
            "SERVICE_STACK": f"test-{uuid.uuid4().hex}",
            "ECR_REPOSITORY": ECR,
            "STARTS_PER_MINUTE": "",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "eu-central-1",
        }
        self.write_template("first")

    def create_stack(self, image, *parameters):
        """Creates the stack without the script, as docs/DEPLOYMENT.md explains."""
        template = ["--template-file", str(self.folder / "service.yaml")]
        process = self.aws("deploy", *template, "--parameter-overrides", f"Image={image}", *parameters)
        self.assertEqual(process.returncode, 0, process.stderr)

    def write_template(self, version):
        (self.folder / "service.yaml").write_text(TEMPLATE.replace("VERSION", version))

    def deploy(self, *arguments, **settings):
        process = subprocess.run(
            [DEPLOY, *arguments], env=self.environment | settings, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        return process.returncode, process.stderr

    def assert_succeeds(self, *arguments, **settings):
        code, errors = self.deploy(*arguments, **settings)
        self.assertEqual(code, 0, errors)
        return errors

    def assert_fails(self, reason, *arguments, **settings):
        code, errors = self.deploy(*arguments, **settings)
        self.assertNotEqual(code, 0, errors)
        self.assertIn(reason, errors)

    def aws(self, *arguments):
        command = ["aws", "cloudformation", *arguments, "--stack-name", self.environment["SERVICE_STACK"]]
        environment = self.environment | {"AWS_DEFAULT_REGION": self.environment["AWS_REGION"]}
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    def deployed(self):
        """Returns the stack's image, the parameter Tasks and the template version, or None if there is no stack."""
        process = self.aws("describe-stacks", "--output", "json")
        if process.returncode != 0:
            return None
        parameters = json.loads(process.stdout)["Stacks"][0]["Parameters"]
        parameters = {parameter["ParameterKey"]: parameter["ParameterValue"] for parameter in parameters}
        template = self.aws("get-template", "--template-stage", "Original", "--query", "TemplateBody", "--output", "text")
        self.assertEqual(parameters["Hidden"], "****")
        return parameters["Image"], parameters["Tasks"], template.stdout.splitlines()[0].split()[-1]

    def calls(self):
        """Returns the calls of docker and the smoke test."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    def smoke_test_rates(self):
        """Returns STARTS_PER_MINUTE of each run of the smoke test."""
        return [call.split()[-1] for call in self.calls() if call.startswith("smoke")]

    def fail_next(self, program, code=1):
        (self.folder / f"fail-{program}").write_text(str(code))

    def require_fake_aws(self):
        if "AWS" in os.environ:
            self.skipTest("needs the fake AWS CLI")

    def put_in_ecr(self, *digests):
        self.require_fake_aws()
        (self.folder / "ecr").write_text("\n".join(digests))

    def test_deployment_copies_checks_updates_and_tests_in_order(self):
        self.create_stack(IMAGES[0])
        self.assert_succeeds(RELEASED[1])
        self.assertEqual(self.deployed(), (IMAGES[1], "2", "first"))
        login, copy, check, smoke_test = self.calls()
        self.assertEqual(login, f"docker login --username AWS --password-stdin {REGISTRY}")
        self.assertEqual(copy, f"docker buildx imagetools create --tag {ECR}:sha256-{'2' * 64} {RELEASED[1]}")
        self.assertTrue(check.startswith("docker run --rm "), check)
        self.assertTrue(check.endswith(f"STREAM_MANAGER__DYNAMODB__TABLE=user-streams {IMAGES[1]} migrate --check"), check)
        self.assertNotIn("AWS_SECRET_ACCESS_KEY=", check)
        self.assertEqual(smoke_test, SMOKE_TEST_CALL)

    def test_deployment_keeps_parameters_and_prints_the_rollback_command(self):
        self.create_stack(IMAGES[0], "Tasks=5")
        self.write_template("second")
        self.assertIn(f"--rollback {IMAGES[0]}", self.assert_succeeds(RELEASED[1]))
        self.assertEqual(self.deployed(), (IMAGES[1], "5", "second"))

    def test_missing_stack_is_rejected(self):
        self.assert_fails("must exist", RELEASED[0])
        self.assert_fails("must exist", "--rollback", RELEASED[0])
        self.assertEqual((self.deployed(), self.calls()), (None, []))

    def test_incomplete_stack_is_rejected(self):
        self.require_fake_aws()
        self.create_stack(IMAGES[0])
        file = self.folder / "stacks.json"
        complete = file.read_text()
        for status in ("CREATE_FAILED", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "REVIEW_IN_PROGRESS", "UPDATE_IN_PROGRESS"):
            file.write_text(complete.replace("CREATE_COMPLETE", status))
            self.assert_fails(f"in state {status}", RELEASED[1])
        self.assertEqual((self.deployed(), self.calls()), ((IMAGES[0], "2", "first"), []))

    def test_smoke_test_respects_the_rate_limit_of_the_service(self):
        self.create_stack(IMAGES[0], "StartsPerMinute=3")
        self.assert_succeeds(RELEASED[1])
        self.assert_succeeds(RELEASED[2], "StartsPerMinute=7")
        self.assert_succeeds(RELEASED[2], STARTS_PER_MINUTE="20")
        self.assertEqual(self.smoke_test_rates(), ["3", "7", "20"])

    def test_schema_check_uses_the_table_of_the_new_deployment(self):
        self.create_stack(IMAGES[0], "TableName=restored")
        self.assert_succeeds(RELEASED[1])
        self.assert_succeeds(RELEASED[2], "TableName=another", "Tasks=5")
        checks = [call for call in self.calls() if "migrate --check" in call]
        for check, table in zip(checks, ("restored", "another"), strict=True):
            self.assertIn(f"STREAM_MANAGER__DYNAMODB__TABLE={table} ", check)

    def test_failed_smoke_test_restores_image_template_and_parameters(self):
        self.create_stack(IMAGES[0], "Tasks=5", "StartsPerMinute=3")
        self.write_template("second")
        self.fail_next("smoke")
        self.assert_fails(f"restoring {IMAGES[0]}", RELEASED[1], "Tasks=7", "StartsPerMinute=4")
        self.assertEqual(self.deployed(), (IMAGES[0], "5", "first"))
        self.assertEqual(self.smoke_test_rates(), ["4", "3"])

    def test_failed_schema_check_leaves_the_service_unchanged(self):
        self.create_stack(IMAGES[0])
        for code, reason in ((1, "another schema"), (3, "could not be checked"), (125, "could not be checked")):
            self.fail_next("docker-run", code)
            self.assert_fails(reason, RELEASED[1])
        self.assertEqual(self.deployed(), (IMAGES[0], "2", "first"))

    def test_failed_stack_update_fails_the_deployment(self):
        self.require_fake_aws()
        self.create_stack(IMAGES[0])
        self.assert_fails("rolled it back", RELEASED[1], "Tasks=BROKEN")
        self.assertEqual(self.deployed(), (IMAGES[0], "2", "first"))

    def test_rollback_uses_the_checked_out_template_without_checks(self):
        self.put_in_ecr(DIGESTS[0])
        self.write_template("second")
        self.create_stack(IMAGES[1], "Tasks=5")
        # The checkout has the earlier template, because the earlier image may not support the settings of the later one.
        self.write_template("first")
        self.assert_succeeds("--rollback", IMAGES[0])
        self.assertEqual(self.deployed(), (IMAGES[0], "5", "first"))
        self.assertEqual(self.calls(), [SMOKE_TEST_CALL])

    def test_failed_rollback_restores_nothing(self):
        self.create_stack(IMAGES[1])
        self.fail_next("smoke")
        self.assert_fails("does not restore", "--rollback", RELEASED[0])
        self.assertEqual(self.deployed(), (IMAGES[0], "2", "first"))

    def test_image_in_ecr_is_not_copied(self):
        self.create_stack(IMAGES[0])
        self.put_in_ecr(DIGESTS[1])
        self.assert_succeeds(RELEASED[1])
        self.assert_succeeds(IMAGES[1], ECR_REPOSITORY="")
        self.assertEqual([call for call in self.calls() if "imagetools" in call], [])
        self.assert_fails("ImageNotFoundException", IMAGES[2], ECR_REPOSITORY="")
        self.assertEqual(self.deployed(), (IMAGES[1], "2", "first"))

    def test_failed_copy_leaves_the_service_unchanged(self):
        self.create_stack(IMAGES[0])
        self.fail_next("docker-buildx")
        self.assert_fails("copying the image", RELEASED[1])
        self.assertEqual(self.deployed(), (IMAGES[0], "2", "first"))

    def test_image_without_a_digest_or_outside_ecr_is_rejected(self):
        self.create_stack(IMAGES[0])
        for image in (f"{REPOSITORY}:1.0.0", REPOSITORY, f"{REPOSITORY}@sha256:12", f"$(id)@sha256:{'1' * 64}"):
            self.assert_fails("by digest", image)
        self.assert_fails("set ECR_REPOSITORY", RELEASED[1], ECR_REPOSITORY="")
        self.assertEqual((self.deployed(), self.calls()), ((IMAGES[0], "2", "first"), []))


if __name__ == "__main__":
    unittest.main()
