"""The sandbox's files, held to tools that know their formats."""

import io
import json
import shutil
import subprocess
import tempfile
import unittest

import trimesh
from aigateway import AIgateway

from gateway import Gateway


class Media(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway()
        cls.client = AIgateway(cls.gateway.key, base_url=cls.gateway.url, media_base_url=cls.gateway.url)

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        cls.gateway.stop()

    def make(self, create, filename, **request):
        job = getattr(self.client.jobs, create)(prompt="a lighthouse", **request)
        job = self.client.jobs.wait(job.id, timeout_seconds=30, poll_interval_seconds=0.1)
        self.assertEqual(job.status, "completed")
        return self.client.files.download(job.id, filename)

    def probe(self, data):
        self.assertIsNotNone(shutil.which("ffprobe"), "ffprobe is not installed")
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            command = ["ffprobe", "-v", "error", "-of", "json", "-show_streams", "-show_format", file.name]
            run = subprocess.run(command, capture_output=True, check=True)
        self.assertEqual(run.stderr, b"")
        seen = json.loads(run.stdout)
        return seen["streams"][0]["codec_name"], float(seen["format"]["duration"])

    def test_video(self):
        for seconds in [0.5, 4, 12.5]:
            codec, length = self.probe(self.make("create_video", "video.mp4", duration=seconds))
            self.assertEqual(codec, "h264")
            self.assertAlmostEqual(length, seconds, delta=0.05)

    def test_music(self):
        for seconds in [1, 8.25]:
            codec, length = self.probe(self.make("create_music", "music.wav", duration=seconds))
            self.assertEqual(codec, "pcm_s16le")
            self.assertAlmostEqual(length, seconds, delta=0.05)

    def test_mesh(self):
        scene = trimesh.load(io.BytesIO(self.make("create_3d", "model.glb")), file_type="glb")
        mesh = next(iter(scene.geometry.values()))
        self.assertTrue(mesh.is_watertight and mesh.is_winding_consistent)
        self.assertGreater(mesh.volume, 0)
