"""The replay store on Redis and Valkey. `dpop_middleware.replay` explains its terms.

- `store`: the public class. `options`: its options. `health`: the state of its servers, and warnings.
- `url`, `endpoints`: where servers are, and how to connect to them.
- `connection`, `resp`: one open socket, and the commands and replies on it.
- `clocks`: the event loop's clock and the time for which it stood still; a server's clock and its steps.
- `vitals`: what a server reports of itself. `anchors`: the values that vouch for entries, and what was seen
  of them. `fence`: since when entries are vouched for, by all these. `retention`: for how long others
  remember.
- `writes`: one request's write, and its possible outcomes. `batch`: several writes, and what their replies
  mean. `usual`: those beside which nothing else is due.
- `server`: one server, its connection and what is known of it. `queue`: the writes that wait for it.
  `writer`: when they are sent or refused, and the writer's states.
- `topology`: a cluster as a whole. `cluster`: the writers to its masters, and the choice among them.
"""

from dpop_middleware.replay.redis.store import RedisReplayStore

__all__ = ["RedisReplayStore"]
