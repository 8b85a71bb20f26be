"""The control for jobs end to end: Celery tasks that do nothing, on the same RabbitMQ.

celery_noop.py AMQP_URL QUEUE COUNT: enqueues COUNT tasks, starts one worker, and prints two numbers: how many it executed per
second, counted from its first task to its last, and the same with the time that it took to enqueue them. The queue is gone
afterwards.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time

from celery import Celery, signals
from kombu import Connection, Exchange, Queue

URL, NAME, COUNT = sys.argv[1], sys.argv[2], int(sys.argv[3])
PATIENCE = 120.0

done = multiprocessing.Value("q", 0)
app = Celery("noop", broker=URL, set_as_current=True)
queue = Queue(NAME, Exchange(NAME, type="direct"), routing_key=NAME)
app.conf.update(
    task_queues=[queue],
    task_default_queue=NAME,
    task_default_exchange=NAME,
    task_default_routing_key=NAME,
    task_acks_late=True,
    task_ignore_result=True,
    worker_concurrency=2,
    # Times the two processes: 64 messages.
    worker_prefetch_multiplier=32,
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
)


@app.task(name="noop")
def noop():
    with done.get_lock():
        done.value += 1


def watch():
    """Prints the rate once all are done, and ends the worker either way."""
    begun = time.monotonic()
    first = None
    while time.monotonic() - begun < PATIENCE:
        count, now = done.value, time.monotonic()
        if first is None and count > 0:
            first = (count, now)
        if count >= COUNT and first is not None:
            executed = max(now - first[1], 1e-9)
            print(round((count - first[0]) / executed), round(count / (enqueued + executed)), flush=True)
            break
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGTERM)


@signals.worker_ready.connect
def ready(**_):
    threading.Thread(target=watch, daemon=True).start()


def remove():
    with Connection(URL) as connection:
        channel = connection.channel()
        channel.queue_delete(NAME)
        channel.exchange_delete(NAME)


try:
    begun = time.monotonic()
    for _ in range(COUNT):
        noop.delay()
    enqueued = time.monotonic() - begun
    flags = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=ERROR"]
    app.worker_main(["worker", "-P", "prefork", "-c", "2", "-Q", NAME, *flags])
finally:
    remove()
