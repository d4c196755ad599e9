"""scripts/deploy against stand-ins for the AWS CLI (aws.py), docker and the end-to-end collection.

With AWS=FOLDER its `aws` is called instead, and says what AWS_ENDPOINT_URL says: the real CLI, on a stand-in for AWS.
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
ECR = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/stream-manager"
IMAGES = [f"{REPOSITORY}@sha256:{digit * 64}" for digit in "123"]

TABLE = """\
Resources:
  Table: {Type: "AWS::SNS::Topic", Properties: {DisplayName: user-streams}}
Outputs:
  TableName: {Value: user-streams}
"""
SERVICE = """\
Description: VERSION
Parameters:
  Image: {Type: String}
  TableName: {Type: String, Default: another}
  Tasks: {Type: String, Default: 2}
  Hidden: {Type: String, NoEcho: true, Default: secret}
Resources:
  Service: {Type: "AWS::SNS::Topic", Properties: {DisplayName: !Ref Image}}
Outputs:
  Url: {Value: https://service.invalid}
"""
# Each writes down what it was asked, and fails if a file of that name says so.
STAND_IN = """\
#!/usr/bin/env bash
cat >/dev/null
printf '%s\\n' "NAME $*" >>"$LOG"
[[ ! -e $FOLDER/fail-NAME ]] || { rm "$FOLDER/fail-NAME"; exit 1; }
"""


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
            "TABLE_STACK": f"{name}-table",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "eu-central-1",
        }
        (self.folder / "table.yaml").write_text(TABLE)
        self.template("first")

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
        """The image, the other parameter, and which template; nothing where there is no stack."""
        done = self.aws("describe-stacks", "--output", "json")
        if done.returncode != 0:
            return None
        parameters = json.loads(done.stdout)["Stacks"][0]["Parameters"]
        parameters = {parameter["ParameterKey"]: parameter["ParameterValue"] for parameter in parameters}
        template = self.aws("get-template", "--template-stage", "Original", "--query", "TemplateBody", "--output", "text")
        self.assertEqual((parameters["Hidden"], parameters["TableName"]), ("****", "user-streams"))
        return parameters["Image"], parameters["Tasks"], template.stdout.splitlines()[0].split()[-1]

    def asked(self):
        return self.log.read_text().splitlines() if self.log.exists() else []

    def fail_next(self, name):
        (self.folder / f"fail-{name}").touch()

    def test_an_image_is_in_service_after_the_table_and_the_service_were_looked_at(self):
        self.works(IMAGES[0])
        self.assertEqual(self.deployed(), (IMAGES[0], "2", "first"))
        check, smoke = self.asked()
        self.assertTrue(check.startswith("docker run --rm "), check)
        self.assertTrue(check.endswith(f"STREAM_MANAGER__DYNAMODB__TABLE=user-streams {IMAGES[0]} migrate --check"), check)
        self.assertNotIn("AWS_SECRET_ACCESS_KEY=", check)
        self.assertEqual(smoke, "smoke https://service.invalid")

    def test_a_later_deployment_keeps_the_parameters_and_tells_the_way_back(self):
        self.works(IMAGES[0], "Tasks=5")
        self.template("second")
        self.assertIn(f"--rollback {IMAGES[0]}", self.works(IMAGES[1]))
        self.assertEqual(self.deployed(), (IMAGES[1], "5", "second"))

    def test_a_service_that_does_not_work_gets_image_template_and_parameters_from_before(self):
        self.works(IMAGES[0], "Tasks=5")
        self.template("second")
        self.fail_next("smoke")
        self.fails(f"goes back to {IMAGES[0]}", IMAGES[1], "Tasks=7")
        self.assertEqual(self.deployed(), (IMAGES[0], "5", "first"))
        self.assertEqual(len([line for line in self.asked() if line.startswith("smoke")]), 3)

    def test_nothing_is_put_back_where_nothing_was(self):
        self.fail_next("smoke")
        self.fails("nothing from before is put back", IMAGES[0])

    def test_a_table_that_is_not_ready_leaves_the_service_as_it_is(self):
        self.works(IMAGES[0])
        self.fail_next("docker")
        self.fails("the service stays as it is", IMAGES[1])
        self.assertEqual(self.deployed(), (IMAGES[0], "2", "first"))

    def test_a_stack_that_cannot_be_updated_is_a_failure(self):
        if "AWS" in os.environ:
            self.skipTest("only the stand-in has such a parameter")
        self.works(IMAGES[0])
        self.fails("took it back itself", IMAGES[1], "Tasks=BROKEN")
        self.assertEqual(self.deployed(), (IMAGES[0], "2", "first"))

    def test_a_rollback_takes_the_image_alone_back_and_asks_nothing_before(self):
        self.works(IMAGES[0], "Tasks=5")
        self.template("second")
        self.works(IMAGES[1])
        self.template("third")
        before = len(self.asked())
        self.works("--rollback", IMAGES[0])
        self.assertEqual(self.deployed(), (IMAGES[0], "5", "second"))
        self.assertEqual(self.asked()[before:], ["smoke https://service.invalid"])

    def test_a_rollback_that_does_not_work_is_a_failure_and_stays(self):
        self.works(IMAGES[0])
        self.works(IMAGES[1])
        self.fail_next("smoke")
        self.fails("nothing from before is put back", "--rollback", IMAGES[0])
        self.assertEqual(self.deployed(), (IMAGES[0], "2", "first"))

    def test_there_is_no_rollback_of_nothing(self):
        self.fails("there is no stack", "--rollback", IMAGES[0])
        self.assertEqual(self.deployed(), None)

    def test_an_image_is_copied_to_the_operators_registry_and_runs_from_there(self):
        self.works(IMAGES[0], ECR_REPOSITORY=ECR)
        digest = IMAGES[0].split("@")[1]
        self.assertEqual(self.deployed()[0], f"{ECR}@{digest}")
        login, copy, check, _ = self.asked()
        self.assertEqual(login, f"docker login --username AWS --password-stdin {ECR.split('/')[0]}")
        self.assertEqual(copy, f"docker buildx imagetools create --tag {ECR}:{digest.replace(':', '-')} {IMAGES[0]}")
        self.assertIn(f" {ECR}@{digest} migrate --check", check)

    def test_an_image_that_cannot_be_copied_leaves_the_service_as_it_is(self):
        self.fail_next("docker")
        self.fails("copies the image", IMAGES[0], ECR_REPOSITORY=ECR)
        self.assertEqual(self.deployed(), None)

    def test_a_name_that_can_change_its_meaning_is_refused(self):
        for image in (f"{REPOSITORY}:1.0.0", REPOSITORY, f"{REPOSITORY}@sha256:12", f"$(id)@sha256:{'1' * 64}"):
            self.fails("named by its digest", image)
        self.assertEqual(self.deployed(), None)


if __name__ == "__main__":
    unittest.main()
