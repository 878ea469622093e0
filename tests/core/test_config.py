"""Settings are strict, and say every problem in words."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field, SecretStr

from scrm.config import ANONYMOUS, PluginSection, Settings, load_settings, plugin_settings
from scrm.errors import StartupError
from scrm.plugin import NoRules, NoWiring, Rules, Wiring


class Points(Rules):
    points_per_yuan: int = Field(default=1, ge=0)
    note: str = ""


class Gateway(Wiring):
    url: str = ""
    token: SecretStr = SecretStr("")
    retries: int = 3


def write(directory: Path, text: str) -> Path:
    file = directory / "scrm.toml"
    file.write_text(text, encoding="utf-8")
    return file


def problems(directory: Path, text: str) -> list[str]:
    with pytest.raises(StartupError) as caught:
        load_settings(write(directory, text))
    return caught.value.problems


def test_defaults_without_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings()
    assert (settings.currency, settings.timezone, settings.language) == ("CNY", "Asia/Shanghai", "zh-CN")
    assert settings.database_url == "sqlite:///scrm.db"
    assert settings.zone.key == "Asia/Shanghai"
    assert (settings.plugins, settings.path, settings.server.allow_anonymous) == ({}, None, None)


def test_a_file_in_the_working_directory_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, 'currency = "USD"\n[server]\nport = 9000\n[plugins.loyalty]\nenabled = true\npoints_per_yuan = 2\n')
    monkeypatch.chdir(tmp_path)
    settings = load_settings()
    assert settings.currency == "USD"
    assert settings.server.port == 9000
    assert settings.plugins["loyalty"].enabled
    assert settings.plugins["loyalty"].values == {"points_per_yuan": 2}
    assert settings.path == file
    assert settings.database_url == f"sqlite:///{tmp_path / 'scrm.db'}"


def test_the_environment_comes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, 'database_url = "sqlite:///a.db"\n[plugins.loyalty]\nenabled = true\npoints_per_yuan = 2\n')
    assert load_settings(file).database_url == f"sqlite:///{tmp_path / 'a.db'}"
    monkeypatch.setenv("SCRM_DATABASE_URL", "sqlite:///b.db")
    monkeypatch.setenv("SCRM_PLUGINS__LOYALTY__TOKEN", "shh")
    settings = load_settings(file)
    assert settings.database_url == "sqlite:///b.db"
    assert settings.plugins["loyalty"].values == {"points_per_yuan": 2, "token": "shh"}


@pytest.mark.parametrize("code", ["XXQ", "cny", "YUAN", "人民币"])
def test_a_currency_is_one_that_there_is(tmp_path: Path, code: str) -> None:
    said = f'setting currency is "{code}"; expected an ISO 4217 code such as CNY'
    assert problems(tmp_path, f'currency = "{code}"\n') == [said]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("postgresql://u:p@h/db", "postgresql+asyncpg://u:p@h/db"),
        ("postgres://u:p@h/db", "postgresql+asyncpg://u:p@h/db"),
        ("postgresql+asyncpg://u:p@h/db", "postgresql+asyncpg://u:p@h/db"),
        ("sqlite+aiosqlite:////tmp/x.db", "sqlite:////tmp/x.db"),
    ],
)
def test_the_driver_is_ours_to_choose(given: str, kept: str) -> None:
    assert Settings(database_url=given).database_url == kept


def test_an_unknown_setting_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    assert problems(tmp_path, 'curency = "CNY"\nzzz = 1\n[server]\nhots = "x"\n') == [
        "setting server.hots is unknown; did you mean host?",
        "setting curency is unknown; did you mean currency?",
        "setting zzz is unknown; known here: announcement_depth, auto_merge, currency, database_pool, database_url, "
        "handler_seconds, jwt, language, late_after_days, max_ahead_hours, on_plugin_error, personal_attributes, "
        "personal_properties, plugin_start_seconds, plugins, secret_key, server, timezone",
    ]


def test_every_wrong_value_is_named_at_once(tmp_path: Path) -> None:
    text = 'currency = "yuan"\ntimezone = "Asia/Nowhere"\nlanguage = "fr"\nlate_after_days = "two"\nauto_merge = "maybe"\n'
    assert problems(tmp_path, text) == [
        'setting currency is "yuan"; expected an ISO 4217 code such as CNY',
        'setting timezone is "Asia/Nowhere"; expected a zone such as Asia/Shanghai',
        "setting language is \"fr\"; expected 'zh-CN' or 'en'",
        'setting auto_merge is "maybe"; expected true or false',
        'setting late_after_days is "two"; expected a whole number',
    ]


JWT = '[jwt]\nissuer = "https://id.example/"\naudience = "scrm"\n'


def test_tokens_are_taken_from_an_issuer_that_the_settings_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings(write(tmp_path, "")).jwt is None
    jwt = load_settings(write(tmp_path, JWT)).jwt
    assert jwt is not None
    assert (jwt.algorithms, jwt.scope_claim, jwt.user_claim, jwt.user_required) == (
        ["RS256", "ES256", "EdDSA"], "scope", None, True,
    )  # fmt: skip
    monkeypatch.setenv("SCRM_JWT__JWKS_FILE", "keys.json")
    monkeypatch.setenv("SCRM_JWT__USER_CLAIM", "openid")
    jwt = load_settings(write(tmp_path, JWT + 'user_channel = "oa"\n')).jwt
    assert jwt is not None
    assert (jwt.jwks_file, jwt.user_claim, jwt.user_channel) == (Path("keys.json"), "openid", "oa")
    monkeypatch.delenv("SCRM_JWT__JWKS_FILE")
    for url in ("http://localhost:8080/keys", "http://[::1]/keys", "https://x.example/keys?a=b"):
        jwt = load_settings(write(tmp_path, f'{JWT}jwks_url = "{url}"\n')).jwt
        assert jwt is not None
        assert jwt.jwks_url == url


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[jwt]\naudience = "scrm"\n', "setting jwt.issuer is missing; add it to scrm.toml or set SCRM_JWT__ISSUER"),
        ('[jwt]\nissuer = "https://x"\n', "setting jwt.audience is missing; add it to scrm.toml or set SCRM_JWT__AUDIENCE"),
        (JWT + 'audiense = "x"\n', "setting jwt.audiense is unknown; did you mean audience?"),
        (JWT + 'algorithms = ["HS256"]\n', "setting jwt.algorithms.0 is \"HS256\"; expected 'RS256',"),
        (JWT + 'algorithms = ["none"]\n', "setting jwt.algorithms.0 is \"none\"; expected 'RS256',"),
        (JWT + "algorithms = []\n", "setting jwt.algorithms is []; expected something; it is empty"),
        (JWT.replace("scrm", ""), 'setting jwt.audience is ""; expected something; it is empty'),
        (JWT + 'user_claim = ""\n', 'setting jwt.user_claim is ""; expected something; it is empty'),
        (JWT + 'jwks_url = "http://id.example/keys"\n', 'setting jwt.jwks_url is "http://id.example/keys"; expected an address'),
        (JWT + 'jwks_url = "https://["\n', 'setting jwt.jwks_url is "https://["; expected an address that begins with https://'),
        (JWT + 'jwks_url = "keys"\n', 'setting jwt.jwks_url is "keys"; expected an address that begins with https://'),
        (JWT + 'jwks_url = "https://x/k"\njwks_file = "k"\n', "setting jwt is {"),
        (JWT.replace("https", "http"), "setting jwt is {"),
        (JWT + 'user_channel = "oa"\n', "setting jwt is {"),
        (JWT + "leeway_seconds = 301\n", "setting jwt.leeway_seconds is 301; expected less than or equal to 300"),
        (JWT + "cache_seconds = 1\n", "setting jwt.cache_seconds is 1; expected greater than or equal to 10"),
    ],
)
def test_an_issuer_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    [said] = problems(tmp_path, text)
    assert said.startswith(problem)


def test_a_server_opens_to_everyone_only_in_words_that_frighten(tmp_path: Path) -> None:
    assert problems(tmp_path, "[server]\nallow_anonymous = true\n") == ["setting server.allow_anonymous is true; expected text"]
    assert problems(tmp_path, '[server]\nallow_anonymous = "yes"\n') == [
        f'setting server.allow_anonymous is "yes"; expected exactly "{ANONYMOUS}", or nothing'
    ]
    opened = load_settings(write(tmp_path, f'[server]\nallow_anonymous = "{ANONYMOUS}"\n'))
    assert opened.server.allow_anonymous == ANONYMOUS


def test_a_password_is_not_shown(tmp_path: Path) -> None:
    assert problems(tmp_path, 'database_url = "oracle://u:hunter2@h/x"\n') == [
        "setting database_url is not what it should be (and not shown, as it may hold a secret); "
        "expected sqlite:///FILE or postgresql+asyncpg://USER:PASSWORD@HOST/NAME"
    ]


def test_a_wrong_value_in_the_environment_names_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRM_DATABASE_URL", "junk")
    monkeypatch.setenv("SCRM_SERVER__PORT", "http")
    monkeypatch.setenv("SCRM_SERVER__HOTS", "x")
    assert problems(tmp_path, "late_after_days = -1\n") == [
        "setting database_url, from the variable SCRM_DATABASE_URL, is not what it should be (and not shown, as it may hold a "
        "secret); expected sqlite:///FILE or postgresql+asyncpg://USER:PASSWORD@HOST/NAME",
        "setting late_after_days is -1; expected greater than or equal to 0",
        'setting server.port, from the variable SCRM_SERVER__PORT, is "http"; expected a whole number',
        "setting server.hots is unknown; did you mean host?",
    ]


def test_a_variable_that_is_no_setting_is_refused_with_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SCRM_DATABSE_URL", "SCRM_SERVER_PORT", "scrm_curency", "SCRM_CURRENCY__X", "SCRM_QQQQQQQQQQQQ"):
        monkeypatch.setenv(name, "x")
    *near, far = sorted(problems(tmp_path, ""), key=lambda line: "known are" in line)
    assert sorted(near) == [
        "the variable SCRM_CURRENCY__X is no setting; did you mean SCRM_CURRENCY?",
        "the variable SCRM_DATABSE_URL is no setting; did you mean SCRM_DATABASE_URL?",
        "the variable SCRM_SERVER_PORT is no setting; did you mean SCRM_SERVER__PORT?",
        "the variable scrm_curency is no setting; did you mean SCRM_CURRENCY?",
    ]
    assert far.startswith("the variable SCRM_QQQQQQQQQQQQ is no setting; known are SCRM_DATABASE_URL, ")


def test_variables_that_are_somebody_elses_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fine = {
        "SCRM_CONFIG": "x.toml",
        "SCRM_TEST_POSTGRES": "postgresql://h/d",
        "SCRM_PLUGINS__ACME__BONUS": "3",
        "SCRM_SERVICE_HOST": "10.0.0.1",  # what Kubernetes says of services called scrm and scrm-db
        "SCRM_SERVICE_PORT_HTTP": "8000",
        "SCRM_PORT": "tcp://10.0.0.1:8000",
        "SCRM_PORT_8000_TCP_ADDR": "10.0.0.1",
        "SCRM_DB_SERVICE_PORT": "5432",
        "SCRM_DB_PORT_5432_TCP": "tcp://10.0.0.2:5432",
        "SCRM_LANGUAGE": "en",
    }
    for name, value in fine.items():
        monkeypatch.setenv(name, value)
    assert load_settings(write(tmp_path, "")).language == "en"


def test_what_is_not_toml_and_what_is_not_there(tmp_path: Path) -> None:
    [line] = problems(tmp_path, "currency = \n")
    assert line.startswith(f"settings file {tmp_path / 'scrm.toml'} is not TOML: ")
    with pytest.raises(StartupError, match=r"settings file /nowhere/scrm.toml does not exist"):
        load_settings(Path("/nowhere/scrm.toml"))


def test_a_plugins_section_is_split_between_rules_and_wiring() -> None:
    section = PluginSection(enabled=True, points_per_yuan=2, url="https://x", token="shh")
    rules, wiring = plugin_settings("loyalty", section, Points, Gateway)
    assert rules == Points(points_per_yuan=2)
    assert wiring == Gateway(url="https://x", token=SecretStr("shh"))


def test_a_plugins_wrong_settings_are_all_named() -> None:
    section = PluginSection(enabled=True, points_per_yuann=1, points_per_yuan="two", retries=1.5, token=["x"])
    with pytest.raises(StartupError) as caught:
        plugin_settings("loyalty", section, Points, Gateway)
    assert caught.value.problems == [
        "setting plugins.loyalty.points_per_yuann is unknown; did you mean points_per_yuan?",
        'setting plugins.loyalty.points_per_yuan is "two"; expected a whole number',
        "setting plugins.loyalty.token is not what it should be (and not shown, as it may hold a secret); expected text",
        "setting plugins.loyalty.retries is 1.5; expected a whole number",
    ]
    with pytest.raises(StartupError, match=r"setting plugins.x.y is unknown; known here: enabled"):
        plugin_settings("x", PluginSection(y=1), NoRules, NoWiring)
