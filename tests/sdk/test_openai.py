"""The openai package from PyPI, unmodified."""

import unittest

import openai

from gateway import Gateway


class Chat(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway()
        cls.client = openai.OpenAI(api_key=cls.gateway.key, base_url=f"{cls.gateway.url}/v1")

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        cls.gateway.stop()

    def create(self, content="Hello!", **more):
        messages = [{"role": "user", "content": content}]
        return self.client.chat.completions.create(model="sandbox/chat", messages=messages, **more)

    def test_a_plain_call(self):
        completion = self.create()
        self.assertEqual(completion.choices[0].message.content, "This is the sandbox. You said: Hello!")
        self.assertEqual(completion.usage.prompt_tokens, 2)

    def test_a_stream_survives_unguarded_choices(self):
        text, usage = "", None
        for chunk in self.create(stream=True):
            text += chunk.choices[0].delta.content or ""
            usage = chunk.usage or usage
        self.assertEqual(text, "This is the sandbox. You said: Hello!")
        self.assertEqual(usage.prompt_tokens, 2)

    def test_a_stream_with_include_usage_has_openais_form(self):
        chunks = list(self.create(stream=True, stream_options={"include_usage": True}))
        self.assertEqual((chunks[-1].choices, chunks[-1].usage.prompt_tokens), ([], 2))
        self.assertTrue(all(chunk.usage is None for chunk in chunks[:-1]))

    def test_a_stream_that_is_left_early(self):
        with self.create("[sandbox word_delay=50ms] one two three", stream=True) as stream:
            next(iter(stream))

    def test_models(self):
        self.assertIn("sandbox/chat", [model.id for model in self.client.models.list()])
        self.assertEqual(self.client.models.retrieve("sandbox/chat").id, "sandbox/chat")

    def test_errors_are_the_packages_own(self):
        with self.assertRaises(openai.NotFoundError) as raised:
            self.client.chat.completions.create(model="nope/x", messages=[{"role": "user", "content": "x"}])
        self.assertEqual(raised.exception.body["type"], "model_not_found")
        self.assertTrue(raised.exception.request_id.startswith("req_"))
        with self.assertRaises(openai.BadRequestError):
            self.client.chat.completions.create(model="sandbox/chat", messages=[])
        with openai.OpenAI(api_key="sk-aig-wrong", base_url=f"{self.gateway.url}/v1") as stranger:
            with self.assertRaises(openai.AuthenticationError):
                stranger.models.list()
        once = self.client.with_options(max_retries=0)
        with self.assertRaises(openai.InternalServerError):
            once.chat.completions.create(
                model="sandbox/chat", messages=[{"role": "user", "content": "[sandbox fail=provider_error]"}]
            )
