"""The replay store on Redis and Valkey. Its words are explained in `dpop_middleware.replay`.

- `store`: what users hold. `options`: how it behaves. `health`: what a person is told of its servers.
- `url`, `endpoints`: where servers are, and how to connect to them.
- `connection`, `resp`: one open socket, and what is said over it.
- `vitals`: what a server tells of itself. `looks`: when it is asked, and what two of its answers tell.
  `anchors`: the values that vouch for entries, and what was seen of them. `fence`: since when entries are
  vouched for, by all these. `retention`: for how long others remember.
- `writes`: one request's write, and how it can end. `batch`: several of them, and what the replies mean.
- `server`: one server, its connection and what is known of it. `writer`: the queue before it, and its states.
- `topology`: a cluster as a whole. `cluster`: the writers to its masters, and which one an entry belongs to.
"""

from dpop_middleware.replay.redis.store import RedisReplayStore

__all__ = ["RedisReplayStore"]
