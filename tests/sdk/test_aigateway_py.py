"""aigateway-py from PyPI, unmodified: its sync and its async client."""

import asyncio
import hashlib
import json
import socket
import unittest
import urllib.error
import urllib.request

from aigateway import AIgateway, AIgatewayError, AsyncAIgateway, verify_webhook

from gateway import Gateway, Receiver, eventually

KINDS = [
    ("create_video", "video.mp4", {"prompt": "a lighthouse", "duration": 1}),
    ("create_music", "music.wav", {"prompt": "a lighthouse", "duration": 1}),
    ("create_3d", "model.glb", {"prompt": "a lighthouse"}),
]


class Jobs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway('[models."sandbox/video"]\ndeadline_seconds = 2\n')
        cls.receiver = Receiver()
        cls.client = AIgateway(cls.gateway.key, base_url=cls.gateway.url, media_base_url=cls.gateway.url, tag="sdk")

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        cls.receiver.stop()
        cls.gateway.stop()

    def record(self, job_id):
        return self.client._request("GET", f"/v1/jobs/{job_id}")

    def wait(self, job_id):
        return self.client.jobs.wait(job_id, timeout_seconds=30, poll_interval_seconds=0.1)

    def assert_failed(self, job_id, code):
        job, record = self.client.jobs.get(job_id), self.record(job_id)
        self.assertEqual(job.status, "failed")
        self.assertEqual(record["error_code"], code)
        self.assertEqual(record["cost_cents"], 0)
        self.assertIsInstance(job.error, str)
        self.assertIsNone(job.result_url)

    def test_each_kind_of_job_is_made_waited_for_and_downloaded(self):
        for create, filename, request in KINDS:
            job = getattr(self.client.jobs, create)(**request)
            self.assertEqual(job.status, "queued")
            job = self.wait(job.id)
            self.assertEqual(job.status, "completed")
            record = self.record(job.id)
            self.assertEqual(record["tag"], "sdk")
            data = self.client.files.download(job.id, filename)
            self.assertEqual(hashlib.sha256(data).hexdigest(), record["result"]["sha256"])
            signed = self.client.files.signed_url(job.id, filename, expires_in=60)
            for url in [signed["url"], job.result_url]:
                with urllib.request.urlopen(url) as response:
                    self.assertEqual(response.read(), data)
            with self.assertRaises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(signed["url"].replace("exp=", "exp=9"))
            self.assertEqual(refused.exception.code, 400)
            refused.exception.close()

    def test_a_cancelled_job(self):
        job = self.client.jobs.create_music(prompt="[sandbox delay=60s]")
        self.assertEqual(self.client.jobs.cancel(job.id).status, "failed")
        self.assertEqual(self.wait(job.id).status, "failed")
        self.assert_failed(job.id, "cancelled")

    def test_refused_expired_and_unknown_outcomes(self):
        for create, directive, code in [
            ("create_music", "fail=content_refused", "content_refused"),
            ("create_music", "fail=provider_error", "provider_error"),
            ("create_music", "fail=unknown_outcome", "provider_outcome_unknown"),
            ("create_video", "fail=timeout", "deadline_exceeded"),
        ]:
            job = getattr(self.client.jobs, create)(prompt=f"[sandbox {directive}]", duration=1)
            self.assertEqual(self.wait(job.id).status, "failed")
            self.assert_failed(job.id, code)

    def test_a_webhook_that_was_really_received_verifies(self):
        secret = self.client.webhook_secret.get()["secret"]
        job = self.client.jobs.create_music(prompt="x", duration=1, webhook_url=self.receiver.url)
        headers, body = eventually("the webhook", lambda: [
            (headers, body) for headers, body in self.receiver.received if json.loads(body)["id"] == job.id
        ])[0]
        signature = next(value for name, value in headers.items() if name.lower() == "x-gateway-signature")
        self.assertTrue(verify_webhook(secret, body, signature))
        self.assertFalse(verify_webhook(secret, body + b" ", signature))
        self.assertEqual(json.loads(body)["status"], "completed")
        rotated = self.client.webhook_secret.rotate()["secret"]
        self.assertNotEqual(rotated, secret)
        self.assertFalse(verify_webhook(rotated, body, signature))

    def test_errors_are_the_clients_own(self):
        for call, status, kind in [
            (lambda: self.client.jobs.get("job_nope"), 404, "not_found"),
            (lambda: self.client.jobs.create_video(), 400, "invalid_request_error"),
            (lambda: self.client.jobs.create_video(prompt="x", model="nope/x"), 404, "model_not_found"),
            (lambda: self.client.files.download("job_nope", "video.mp4"), 404, "not_found"),
        ]:
            with self.assertRaises(AIgatewayError) as raised:
                call()
            self.assertEqual(raised.exception.status_code, status)
            self.assertEqual(raised.exception.type, kind)
        with AIgateway("sk-aig-wrong", base_url=self.gateway.url, media_base_url=self.gateway.url) as stranger:
            with self.assertRaises(AIgatewayError) as raised:
                stranger.jobs.get("job_nope")
            self.assertEqual(raised.exception.status_code, 401)

    def test_models(self):
        self.assertEqual([model["id"] for model in self.client.models.list(modality="video")], ["sandbox/video"])
        self.assertEqual(self.client.models.get("sandbox/music")["id"], "sandbox/music")

    def test_the_async_client(self):
        async def run():
            async with AsyncAIgateway(
                self.gateway.key, base_url=self.gateway.url, media_base_url=self.gateway.url
            ) as client:
                for create, filename, request in KINDS:
                    job = await getattr(client.jobs, create)(**request)
                    job = await client.jobs.wait(job.id, timeout_seconds=30, poll_interval_seconds=0.1)
                    self.assertEqual(job.status, "completed")
                    self.assertTrue(await client.files.download(job.id, filename))
                    signed = await client.files.signed_url(job.id, filename)
                    self.assertIn("token=", signed["url"])
                slow = await client.jobs.create_video(prompt="[sandbox delay=60s]")
                self.assertEqual((await client.jobs.cancel(slow.id)).status, "failed")
                self.assertTrue((await client.webhook_secret.get())["secret"].startswith("whsec_"))

        asyncio.run(run())


class Poison(unittest.TestCase):
    def test_a_job_that_is_submitted_when_its_worker_dies_three_times_is_buried(self):
        upstream = socket.create_server(("127.0.0.1", 0))  # Takes connections, and never answers.
        gateway = Gateway(
            f"[providers.up]\nkind = 'aigateway'\nbase_url = 'http://127.0.0.1:{upstream.getsockname()[1]}'\n"
            "models = '*'\nidempotent_submit = true\n"
        )
        with AIgateway(gateway.key, base_url=gateway.url, media_base_url=gateway.url) as client:
            job_id = client.jobs.create_video(prompt="x", model="up/x").id
        for _ in range(3):
            connection, _ = upstream.accept()
            gateway.kill()
            connection.close()
            gateway.start()
        with AIgateway(gateway.key, base_url=gateway.url, media_base_url=gateway.url) as client:
            job = client.jobs.wait(job_id, timeout_seconds=30, poll_interval_seconds=0.1)
            record = client._request("GET", f"/v1/jobs/{job_id}")
        self.assertEqual((job.status, record["error_code"], record["cost_cents"]), ("failed", "poison", 0))
        upstream.close()
        gateway.stop()
