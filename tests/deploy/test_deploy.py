"""scripts/deploy against stand-ins for the AWS CLI (aws.py), docker and the end-to-end collection.

With AWS=FOLDER its `aws` is called instead, and asks AWS_ENDPOINT_URL: the real CLI, on a stand-in for AWS. MiniStack will do; moto
shows what is hidden, and refuses an update of nothing.
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

SERVICE = """\
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
# Each writes down what it was asked, and fails if a file says so, with the exit code that it holds.
STAND_IN = """\
#!/usr/bin/env bash
cat >/dev/null
what=NAME
if [[ $what == docker ]]; then what+=-$1; else set -- "$@" "${STARTS_PER_MINUTE:-}"; fi
printf '%s\\n' "NAME $*" >>"$LOG"
[[ ! -e $FOLDER/fail-$what ]] || { code=$(<"$FOLDER/fail-$what"); rm "$FOLDER/fail-$what"; exit "$code"; }
"""
SMOKE = "smoke https://service.invalid 10"


class Deploy(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        programs = self.folder / "bin"
        programs.mkdir()
        for name in ("docker", "smoke"):
            (programs / name).write_text(STAND_IN.replace("NAME", name))
            (programs / name).chmod(0o755)
        if "AWS" not in os.environ:
            (programs / "aws").symlink_to(HERE / "aws.py")
        self.log = self.folder / "log"
        name = f"test-{uuid.uuid4().hex}"
        self.environment = os.environ | {
            "PATH": f"{programs}:{os.environ.get('AWS', '')}:{os.environ['PATH']}",
            "STACKS": str(self.folder / "stacks.json"),
            "FOLDER": str(self.folder),
            "LOG": str(self.log),
            "TEMPLATES": str(self.folder),
            "SMOKE_TEST": "smoke",
            "SERVICE_STACK": name,
            "ECR_REPOSITORY": ECR,
            "STARTS_PER_MINUTE": "",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "eu-central-1",
        }
        self.template("first")

    def there_is(self, image, *parameters):
        """A service, made as the documents say, and what the script has to do with it later."""
        template = ["--template-file", str(self.folder / "service.yaml")]
        done = self.aws("deploy", *template, "--parameter-overrides", f"Image={image}", *parameters)
        self.assertEqual(done.returncode, 0, done.stderr)

    def template(self, version):
        (self.folder / "service.yaml").write_text(SERVICE.replace("VERSION", version))

    def deploy(self, *words, **settings):
        done = subprocess.run(
            [DEPLOY, *words], env=self.environment | settings, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        return done.returncode, done.stderr

    def works(self, *words, **settings):
        code, said = self.deploy(*words, **settings)
        self.assertEqual(code, 0, said)
        return said

    def fails(self, why, *words, **settings):
        code, said = self.deploy(*words, **settings)
        self.assertNotEqual(code, 0, said)
        self.assertIn(why, said)

    def aws(self, *words):
        command = ["aws", "cloudformation", *words, "--stack-name", self.environment["SERVICE_STACK"]]
        environment = self.environment | {"AWS_DEFAULT_REGION": self.environment["AWS_REGION"]}
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    def deployed(self):
        """The image, a parameter, and which template; nothing where there is no stack."""
        done = self.aws("describe-stacks", "--output", "json")
        if done.returncode != 0:
            return None
        parameters = json.loads(done.stdout)["Stacks"][0]["Parameters"]
        parameters = {parameter["ParameterKey"]: parameter["ParameterValue"] for parameter in parameters}
        template = self.aws("get-template", "--template-stage", "Original", "--query", "TemplateBody", "--output", "text")
        self.assertEqual(parameters["Hidden"], "****")
        return parameters["Image"], parameters["Tasks"], template.stdout.splitlines()[0].split()[-1]

    def asked(self):
        return self.log.read_text().splitlines() if self.log.exists() else []

    def fail_next(self, name, code=1):
        (self.folder / f"fail-{name}").write_text(str(code))

    def only_in_the_stand_in(self):
        if "AWS" in os.environ:
            self.skipTest("only the stand-in can be made so")

    def in_ecr(self, *digests):
        self.only_in_the_stand_in()
        (self.folder / "ecr").write_text("\n".join(digests))

    def test_an_image_is_in_service_after_the_table_and_the_service_were_looked_at(self):
        self.there_is(IMAGES[0])
        self.works(RELEASED[1])
        self.assertEqual(self.deployed(), (IMAGES[1], "2", "first"))
        login, copy, check, smoke = self.asked()
        self.assertEqual(login, f"docker login --username AWS --password-stdin {REGISTRY}")
        self.assertEqual(copy, f"docker buildx imagetools create --tag {ECR}:sha256-{'2' * 64} {RELEASED[1]}")
        self.assertTrue(check.startswith("docker run --rm "), check)
        self.assertTrue(check.endswith(f"STREAM_MANAGER__DYNAMODB__TABLE=user-streams {IMAGES[1]} migrate --check"), check)
        self.assertNotIn("AWS_SECRET_ACCESS_KEY=", check)
        self.assertEqual(smoke, SMOKE)

    def test_a_later_deployment_keeps_the_parameters_and_tells_the_way_back(self):
        self.there_is(IMAGES[0], "Tasks=5")
        self.template("second")
        self.assertIn(f"--rollback {IMAGES[0]}", self.works(RELEASED[1]))
        self.assertEqual(self.deployed(), (IMAGES[1], "5", "second"))

    def test_the_first_stack_is_made_by_hand(self):
        self.fails("must be there already", RELEASED[0])
        self.fails("must be there already", "--rollback", RELEASED[0])
        self.assertEqual((self.deployed(), self.asked()), (None, []))

    def test_a_stack_that_was_never_complete_is_left_alone(self):
        self.only_in_the_stand_in()
        self.there_is(IMAGES[0])
        file = self.folder / "stacks.json"
        complete = file.read_text()
        for status in ("CREATE_FAILED", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "REVIEW_IN_PROGRESS", "UPDATE_IN_PROGRESS"):
            file.write_text(complete.replace("CREATE_COMPLETE", status))
            self.fails(f"is {status}", RELEASED[1])
        self.assertEqual((self.deployed(), self.asked()), ((IMAGES[0], "2", "first"), []))

    def test_the_smoke_test_goes_as_slowly_as_the_service_wants_it(self):
        self.there_is(IMAGES[0], "StartsPerMinute=3")
        self.works(RELEASED[1])
        self.works(RELEASED[2], "StartsPerMinute=7")
        self.works(RELEASED[2], STARTS_PER_MINUTE="20")
        smoke = [line.split()[-1] for line in self.asked() if line.startswith("smoke")]
        self.assertEqual(smoke, ["3", "7", "20"])

    def test_the_table_that_is_asked_is_the_one_that_the_service_will_have(self):
        self.there_is(IMAGES[0], "TableName=restored")
        self.works(RELEASED[1])
        self.works(RELEASED[2], "TableName=another", "Tasks=5")
        checks = [line for line in self.asked() if "migrate --check" in line]
        for check, table in zip(checks, ("restored", "another"), strict=True):
            self.assertIn(f"STREAM_MANAGER__DYNAMODB__TABLE={table} ", check)

    def test_a_service_that_does_not_work_gets_image_template_and_parameters_from_before(self):
        self.there_is(IMAGES[0], "Tasks=5", "StartsPerMinute=3")
        self.template("second")
        self.fail_next("smoke")
        self.fails(f"goes back to {IMAGES[0]}", RELEASED[1], "Tasks=7", "StartsPerMinute=4")
        self.assertEqual(self.deployed(), (IMAGES[0], "5", "first"))
        smoke = [line.split()[-1] for line in self.asked() if line.startswith("smoke")]
        self.assertEqual(smoke, ["4", "3"])

    def test_a_table_that_is_not_ready_leaves_the_service_as_it_is(self):
        self.there_is(IMAGES[0])
        for code, why in ((1, "update the table's stack"), (3, "could not be asked"), (125, "could not be asked")):
            self.fail_next("docker-run", code)
            self.fails(why, RELEASED[1])
        self.assertEqual(self.deployed(), (IMAGES[0], "2", "first"))

    def test_a_stack_that_cannot_be_updated_is_a_failure(self):
        self.only_in_the_stand_in()
        self.there_is(IMAGES[0])
        self.fails("took it back itself", RELEASED[1], "Tasks=BROKEN")
        self.assertEqual(self.deployed(), (IMAGES[0], "2", "first"))

    def test_a_rollback_has_the_template_beside_it_and_asks_nothing_before(self):
        self.in_ecr(DIGESTS[0])
        self.template("second")
        self.there_is(IMAGES[1], "Tasks=5")
        # What the earlier version comes with, since it may not know what a later one sets.
        self.template("first")
        self.works("--rollback", IMAGES[0])
        self.assertEqual(self.deployed(), (IMAGES[0], "5", "first"))
        self.assertEqual(self.asked(), [SMOKE])

    def test_a_rollback_that_does_not_work_is_a_failure_and_stays(self):
        self.there_is(IMAGES[1])
        self.fail_next("smoke")
        self.fails("nothing from before is put back", "--rollback", RELEASED[0])
        self.assertEqual(self.deployed(), (IMAGES[0], "2", "first"))

    def test_an_image_that_is_in_the_operators_registry_is_not_fetched_again(self):
        self.there_is(IMAGES[0])
        self.in_ecr(DIGESTS[1])
        self.works(RELEASED[1])
        self.works(IMAGES[1], ECR_REPOSITORY="")
        self.assertEqual([line for line in self.asked() if "imagetools" in line], [])
        self.fails("ImageNotFoundException", IMAGES[2], ECR_REPOSITORY="")
        self.assertEqual(self.deployed(), (IMAGES[1], "2", "first"))

    def test_an_image_that_cannot_be_copied_leaves_the_service_as_it_is(self):
        self.there_is(IMAGES[0])
        self.fail_next("docker-buildx")
        self.fails("copies the image", RELEASED[1])
        self.assertEqual(self.deployed(), (IMAGES[0], "2", "first"))

    def test_an_image_that_no_service_could_run_is_refused_before_anything_is_done(self):
        self.there_is(IMAGES[0])
        for image in (f"{REPOSITORY}:1.0.0", REPOSITORY, f"{REPOSITORY}@sha256:12", f"$(id)@sha256:{'1' * 64}"):
            self.fails("named by its digest", image)
        self.fails("set ECR_REPOSITORY", RELEASED[1], ECR_REPOSITORY="")
        self.assertEqual((self.deployed(), self.asked()), ((IMAGES[0], "2", "first"), []))


if __name__ == "__main__":
    unittest.main()
