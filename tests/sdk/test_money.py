"""Who pays, with the real clients: aigateway-py, the OpenAI SDK, and curl where the shipped client has no word for it."""

import json
import subprocess
import unittest

import openai
from aigateway import AIgateway, AIgatewayError

from gateway import Gateway, eventually


class Money(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway()
        cls.owner = AIgateway(cls.gateway.key, base_url=cls.gateway.url, media_base_url=cls.gateway.url)

    @classmethod
    def tearDownClass(cls):
        cls.owner.close()
        cls.gateway.stop()

    def customer(self, key):
        return AIgateway(key, base_url=self.gateway.url, media_base_url=self.gateway.url)

    def curl(self, method, path, body=None):
        command = ["curl", "-sS", "-X", method, f"{self.gateway.url}{path}", "-H", f"Authorization: Bearer {self.gateway.key}"]
        if body is not None:
            command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)

    def wait(self, client, job):
        return client.jobs.wait(job.id, timeout_seconds=30, poll_interval_seconds=0.1)

    def test_a_sub_account_reaches_its_cap_and_goes_on_when_it_is_raised(self):
        # A mesh costs ten cents and five per cent.
        made = self.owner.sub_accounts.create(name="acme", spend_cap_cents=21, default_tag="acme")
        self.assertEqual(made["key"], made["scoped_key"])
        with self.customer(made["key"]) as client:
            for _ in range(2):
                self.assertEqual(self.wait(client, client.jobs.create_3d(prompt="a cube")).status, "completed")
            with self.assertRaises(AIgatewayError) as refused:
                client.jobs.create_3d(prompt="a cube")
            self.assertEqual((refused.exception.status_code, refused.exception.type), (402, "budget_exceeded"))
            self.assertIn(made["id"], str(refused.exception))
            answer = client._client.post("/v1/3d/generations", json={"prompt": "a cube"})
            error = answer.json()["error"]
            self.assertEqual(error["request_id"], answer.headers["x-request-id"])
            budget = error["budget"]
            self.assertEqual((budget["scope"], budget["scope_id"]), ("sub_account", made["id"]))
            self.assertEqual((budget["cap_cents"], budget["spent_cents"], budget["requested_cents"]), (21, 21, 10.5))
            raised = self.curl("PATCH", f"/v1/sub-accounts/{made['id']}", {"spend_cap_cents": 32})
            self.assertEqual(raised["spend_cap_cents"], 32)
            self.assertEqual(self.wait(client, client.jobs.create_3d(prompt="a cube")).status, "completed")
        rows = self.curl("GET", "/v1/usage/by-sub-account")["data"]
        mine = next(row for row in rows if row["sub_account_id"] == made["id"])
        self.assertEqual((mine["requests"], mine["cost_cents"]), (3, 31.5))
        tags = self.curl("GET", "/v1/usage/by-tag")["data"]
        self.assertEqual(next(row for row in tags if row["tag"] == "acme")["cost_cents"], 31.5)

    def test_the_openai_sdk_says_what_a_call_cost_and_is_refused_at_the_cap(self):
        made = self.owner.sub_accounts.create(name="chat", spend_cap_cents=1)
        client = openai.OpenAI(api_key=made["key"], base_url=f"{self.gateway.url}/v1", max_retries=0)
        ask = {"model": "sandbox/chat", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 20}
        answer = client.chat.completions.with_raw_response.create(**ask)
        completion = answer.parse()
        cents = float(answer.headers["x-cost-cents"])
        self.assertAlmostEqual(completion.usage.cost, cents / 100)
        used = completion.usage.prompt_tokens * 100 + completion.usage.completion_tokens * 400
        self.assertAlmostEqual(cents, used / 1e6 * 1.05, places=6)
        *_, last = client.chat.completions.create(**ask, stream=True)
        self.assertGreater(last.usage.cost, 0)
        request = answer.headers["x-request-id"]
        row = eventually("the request is on record", lambda: self.row(request))
        self.assertEqual(row["cost_cents"], cents)
        with self.assertRaises(openai.APIStatusError) as refused:
            client.chat.completions.create(**{**ask, "max_tokens": 50_000})
        self.assertEqual((refused.exception.status_code, refused.exception.type), (402, "budget_exceeded"))
        self.assertIn("could cost up to", refused.exception.message)
        client.close()

    def row(self, request_id):
        row = self.curl("GET", f"/v1/requests/{request_id}")
        return row if row.get("outcome") == "completed" else None


if __name__ == "__main__":
    unittest.main()
