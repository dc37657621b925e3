"""Protection of Django under ASGI: `request.user`, and a decorator for single views.

Put `DPoPMiddleware` around `get_asgi_application()`, as around any application; these two are for use inside.
"""

import contextlib
import functools
import inspect
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, TypeVar, cast

from dpop_middleware._adapter.answers import error_response, holding
from dpop_middleware._adapter.connection import (
    Connection,
    DPoPUser,
    checked_resource_server,
    has_credentials,
)
from dpop_middleware._judge.requirements import NO_CLAIMS, Predicate, Requirements
from dpop_middleware._judge.verdicts import ErrorResponse
from dpop_middleware._options import flag
from dpop_middleware.errors import ConfigurationError, DPoPError
from dpop_middleware.resource_server import ResourceServer

try:
    from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
    from django.db import connections, transaction
    from django.db.transaction import Atomic
    from django.http import HttpRequest, HttpResponse
    from django.http.response import HttpResponseBase
    from django.utils.cache import patch_cache_control, patch_vary_headers
    from django.utils.decorators import sync_and_async_middleware
except ImportError as error:
    raise ImportError(
        "dpop_middleware.django needs Django, which is not installed: "
        "in a checkout of dpop_middleware, python -m pip install '.[django]'"
    ) from error

__all__ = ["TokenUser", "dpop_user", "requires_dpop"]

_View = TypeVar("_View", bound=Callable[..., Any])
_Scope = dict[str, Any]


class TokenUser(DPoPUser):
    """The user or client of a verified access token, with the attributes that Django requires of a user.

    It isn't in your database: `pk` is None, and it has no permissions, groups or staff rights. Find your own
    user by `identity`, and count requests by it; the scopes are in `access_token.scopes`.
    """

    pk = id = None
    is_active = True
    is_anonymous = False
    is_staff = is_superuser = False

    @property
    def username(self) -> str:
        """The user or client of the token: the same as `identity`."""
        return self.identity

    def get_username(self) -> str:
        """Return `username`."""
        return self.username

    def has_perm(self, perm: str, obj: object = None) -> bool:  # noqa: ARG002 - Django's signature
        """False: scopes are no permissions of Django's."""
        return False

    def has_perms(self, perm_list: Collection[str], obj: object = None) -> bool:  # noqa: ARG002 - as above
        """Whether nothing is asked for."""
        return not perm_list

    def has_module_perms(self, app_label: str) -> bool:  # noqa: ARG002 - as above
        """False, as `has_perm`."""
        return False

    async def ahas_perm(self, perm: str, obj: object = None) -> bool:
        """Do as `has_perm` does."""
        return self.has_perm(perm, obj)

    async def ahas_perms(self, perm_list: Collection[str], obj: object = None) -> bool:
        """Do as `has_perms` does."""
        return self.has_perms(perm_list, obj)

    async def ahas_module_perms(self, app_label: str) -> bool:
        """Do as `has_module_perms` does."""
        return self.has_module_perms(app_label)

    def __str__(self) -> str:
        return self.username


@sync_and_async_middleware  # type: ignore[untyped-decorator]
def dpop_user(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Set `request.user` to the caller that `DPoPMiddleware` authenticated; for Django's `MIDDLEWARE`.

        MIDDLEWARE = [..., "dpop_middleware.django.dpop_user"]

    Put it after `AuthenticationMiddleware` and anything else that sets a user. That user stays if a request
    has no credentials. An authenticated request needs no CSRF token, since no browser makes a proof without
    the page's code.
    """
    if iscoroutinefunction(get_response):  # pyright: ignore[reportDeprecated]

        async def asynchronous(request: HttpRequest) -> Any:
            _show(request)
            return await get_response(request)

        return asynchronous

    def synchronous(request: HttpRequest) -> Any:
        _show(request)
        return get_response(request)

    return synchronous


def requires_dpop(
    resource_server: ResourceServer,
    *scopes: str,
    any_of: Collection[str] = (),
    claims: Mapping[str, Predicate] = NO_CLAIMS,
    acr_values: Collection[str] = (),
    max_age: int | None = None,
    required: bool = True,
) -> Callable[[_View], _View]:
    """Let a request reach the decorated view only with a valid access token and DPoP proof.

    Goes on a function (sync or async) that takes the request first, around `MyView.as_view()`, and on a class
    as `@method_decorator(requires_dpop(api), name="dispatch")`. Sets `request.user` to a `TokenUser`. Needs
    no middleware, and under one the request is not authenticated a second time. The view is exempt from
    Django's CSRF check, since no browser makes a proof without the page's code, and from
    `LoginRequiredMiddleware`. With `required=False` it is exempt from neither. A sync view has the
    transactions that `ATOMIC_REQUESTS` asks for. A response is `private`, so that `cache_page` around the
    view doesn't keep it, unless the view calls it `public`. Whoever calls a decorated view must return what
    that returns: a refusal is a response.

    - `scopes`, `any_of`, `claims`, `acr_values`, `max_age`: as in `dpop_middleware.starlette.requires_dpop`.
    - `required`: False also lets a request without `Authorization` through, with the user that it already
      has.

    Several challenges are sent in one header line, since Django keeps only one line of each name. A nonce for
    the client's next request is added to the HttpResponse that the view returns; if it returns another value,
    as with django-ninja, only the middleware can add it. As `auth=` of django-ninja a decorated function
    refuses without a challenge: put `DPoPMiddleware` around the application. Raises ConfigurationError, also
    for a request under WSGI.
    """
    takes = "a ResourceServer first: @requires_dpop(api, 'notes:read')"
    checked_resource_server(resource_server, option="requires_dpop", takes=takes)
    requirements = Requirements(
        scopes=scopes, any_of=any_of, claims=claims, acr_values=acr_values, max_age=max_age
    )
    flag("required", required)

    def decorate(view: Any) -> Any:
        call, marks = _asynchronous(view)

        async def protected(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            scope = _scope(request)
            connection = Connection.of(scope)
            with holding(connection):
                if required or has_credentials(scope):
                    try:
                        await connection.authenticate(resource_server, scope, requirements)
                    except DPoPError as error:
                        return _refusal(error_response(resource_server, error, scope))
                    _show(request)
                response = await call(request, *args, **kwargs)
            if isinstance(response, HttpResponseBase):
                for name, value in connection.response_headers:
                    response.headers[name] = value
                _tell_caches(response, anonymous="dpop" not in scope)
            else:
                # Django's own mark: no cache of its keeps what will be made of this value.
                cast("Any", request)._cache_update_cache = False
            return response

        functools.update_wrapper(protected, view)
        exempt: Any = protected
        exempt.csrf_exempt = required or getattr(view, "csrf_exempt", False)
        exempt.login_required = not required and getattr(view, "login_required", True)
        vars(protected).update(marks)
        return markcoroutinefunction(protected)

    return decorate


class _AllDatabases(set[str]):
    """The databases in which Django itself opens no transaction: it can't around an async view.

    For a sync view `requires_dpop` opens them, except in those that the set really has.
    """

    def __contains__(self, alias: object) -> bool:
        return True


def _asynchronous(view: Callable[..., Any]) -> tuple[Callable[..., Awaitable[Any]], Mapping[str, Any]]:
    """Return `view` as an async function, and the attributes by which Django knows what that changes."""
    if inspect.isclass(view) or not callable(view):
        raise ConfigurationError(
            f"@requires_dpop goes on a view that is a function, or around MyView.as_view(), not on {view!r}"
        )
    if iscoroutinefunction(view):  # pyright: ignore[reportDeprecated]
        return view, {}
    without_transaction = _AllDatabases(getattr(view, "_non_atomic_requests", ()))

    def in_transactions(*args: Any, **kwargs: Any) -> Any:
        exempt = frozenset(without_transaction)
        atomic = [alias for alias in connections if connections[alias].settings_dict["ATOMIC_REQUESTS"]]
        atomic = [alias for alias in atomic if alias not in exempt]
        with contextlib.ExitStack() as transactions:
            for alias in atomic:
                transactions.enter_context(cast("Atomic", transaction.atomic(using=alias)))
            result = view(*args, **kwargs)
        if atomic and inspect.iscoroutine(result):
            result.close()
            raise RuntimeError("You cannot use ATOMIC_REQUESTS with async views.")  # as Django itself says
        return result

    async def asynchronous(*args: Any, **kwargs: Any) -> Any:
        result = await sync_to_async(in_transactions)(*args, **kwargs)
        # A callable object and a method `dispatch` may be async without being coroutine functions.
        return await result if inspect.isawaitable(result) else result

    return asynchronous, {"_non_atomic_requests": without_transaction}


def _scope(request: object) -> _Scope:
    scope: _Scope | None = getattr(request, "scope", None)
    if scope is None and not hasattr(request, "META"):
        raise ConfigurationError(
            f"a {type(request).__name__} is no request: @requires_dpop goes on no method, but on the class, "
            "as @method_decorator(requires_dpop(api), name='dispatch')"
        )
    if scope is None:
        raise ConfigurationError("DPoP needs Django under ASGI: serve get_asgi_application()")
    return scope


def _show(request: Any) -> None:
    verified = getattr(request, "scope", {}).get("dpop")
    if verified is None:
        return
    user = TokenUser(verified)

    async def auser() -> TokenUser:
        return user

    request.user = user
    request.auser = auser
    # Django's own mark of a request that needs no further look, Django REST framework's too.
    request.csrf_processing_done = True


def _tell_caches(response: HttpResponseBase, *, anonymous: bool) -> None:
    """Keep a response out of caches around the view: a token alone, which is all they look at, opens nothing.

    A view that calls its response public, or lets nobody store it, has decided.
    """
    decided = response.get("Cache-Control", "").lower()
    if anonymous:
        patch_vary_headers(response, ("Authorization",))
    elif "public" not in decided and "no-store" not in decided:
        patch_cache_control(response, private=True)


class _Refusal(HttpResponse):  # type: ignore[misc] # Django has no types
    """A refusal, which is false for django-ninja: any true value of its `auth=` lets a request pass."""

    def __bool__(self) -> bool:
        # No variable has a frame, which would have that variable: until a garbage collection.
        asking = sys._getframe(1).f_globals.get("__name__")  # pyright: ignore[reportPrivateUsage]
        return str(asking).partition(".")[0] != "ninja"


def _refusal(response: ErrorResponse) -> HttpResponse:
    rendered = _Refusal(response.body, status=response.status)
    for name in dict.fromkeys(name for name, _ in response.headers):
        rendered.headers[name] = ", ".join(value for given, value in response.headers if given == name)
    return rendered
