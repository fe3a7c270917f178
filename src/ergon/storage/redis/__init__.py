"""The execution log on a Redis or Valkey server, or on a cluster of them."""

from ergon.errors import LogRefused

try:
    from ergon.storage.redis.log import RedisExecutionLog
except ModuleNotFoundError as error:
    if error.name != "redis":
        raise
    raise LogRefused(
        "a log on Redis or Valkey needs the package redis; install it with: pip install 'ergon[redis]'"
    ) from error

__all__ = ["RedisExecutionLog"]
