"""The replay store on Redis and Valkey."""

from dpop_middleware.replay.redis.store import RedisReplayStore

__all__ = ["RedisReplayStore"]
