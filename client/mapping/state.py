"""One mapping on its way, and the books that it keeps: every row that goes in comes out somewhere."""

from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from client.extract import tables_read
from client.mapping.account import Account, Line, Refused
from client.mapping.codes import FEWEST_TO_TELL, CodeBook
from client.mapping.config import Mapping
from client.mapping.expressions import quote_name
from client.mapping.relations import Frame
from client.mapping.texts import plain_code
from client.source import quoted
from shared_model.schema import Table

_REJECTED = """"#rule" <> 'no value' AND NOT starts_with("#rule", '-')"""


@dataclass
class Run:
    """One mapping on its way: the connection, the rows of every relation, and the account so far."""

    connection: duckdb.DuckDBPyConnection
    mapping: Mapping
    folder: Path
    flag: str
    frames: dict[str, Frame]
    account: Account = field(default_factory=Account)

    def columns_of(self, table: Table) -> dict[str, str]:
        """The columns of a table with their types, with the site's own flag where the table has it."""
        return next(t.columns for t in tables_read(self.flag) if t.name == table.name)

    def condition(self, frame: Frame, text: str, where: str) -> str:
        """A mapping's filter as SQL."""
        return frame.expression(text, f"{where}.filter").sql if text else "true"

    def row_text(self, frame: Frame) -> str:
        """SQL of a whole row ``r`` of a relation, as JSON."""
        described = self.connection.execute(f"DESCRIBE SELECT * FROM {frame.view}").fetchall()
        names = [quote_name(row[0]) for row in described if not row[0].startswith("#")]
        packed = ", ".join(f"{name} := r.{name}" for name in names)
        return f"CAST(to_json(struct_pack({packed})) AS VARCHAR)"

    def account_judged(
        self, where: str, frame: Frame, condition: str, codes: CodeBook | None = None, judged: str = "judged"
    ) -> None:
        """Write the line of a mapping whose rows are in ``judged``, and keep those that were rejected."""
        rows = self._one(f"SELECT count(*) FROM {frame.view}")
        filtered = rows - self._one(
            f"SELECT count(*) FROM {frame.view} AS r WHERE {self.condition(frame, condition, where)}"
        )
        counted = self.connection.execute(
            f'SELECT "#rule", count(*) FROM {judged} GROUP BY 1 ORDER BY 2 DESC, 1'
        ).fetchall()
        rules = {str(rule): int(n) for rule, n in counted if rule is not None}
        ignored = {rule[1:]: n for rule, n in rules.items() if rule.startswith("-")}
        ignored |= {"filter": filtered} if filtered else {}
        notes: dict[str, int] = {}
        if codes is not None:
            ignored |= self._without_code(where)
            self._account_codes(where, codes, judged)
            censored = self._one(f'SELECT count(*) FROM {judged} WHERE "#censored" AND "#rule" IS NULL')
            notes = {"a sign such as < before the number is left out": censored} if censored else {}
        rejected = {rule: n for rule, n in rules.items() if not rule.startswith("-")}
        mapped = sum(int(n) for rule, n in counted if rule is None)
        line = Line(
            step=where, source=frame.name, rows=rows, mapped=mapped, rejected=rejected, ignored=ignored, notes=notes
        )
        self.account.lines.append(line)
        if rejected:
            self._keep(where, judged)

    def _account_codes(self, where: str, codes: CodeBook, judged: str) -> None:
        """Keep in mind the codes of which a part of the rows was rejected."""
        counted = self.connection.execute(
            f"""SELECT "#spec", count(*), count(*) FILTER ({_REJECTED}), mode("#rule") FILTER ({_REJECTED})
            FROM {judged} GROUP BY 1 ORDER BY 1"""
        ).fetchall()
        for number, rows, rejected, rule in counted:
            if not rejected or rows < FEWEST_TO_TELL:
                continue
            coded = codes.numbered[number]
            named = coded.spec.pattern or plain_code(coded.code or "")
            self.account.refused.append(
                Refused(step=where, code=named, concept=coded.target.name, rows=rows, rejected=rejected, rule=str(rule))
            )

    def _without_code(self, where: str) -> dict[str, int]:
        mine = [found for found in self.account.codes if found.step == where and found.concept is None]
        named = {
            "code that the config ignores": sum(found.rows for found in mine if found.ignored),
            "code that nothing maps": sum(found.rows for found in mine if not found.ignored),
        }
        return {reason: rows for reason, rows in named.items() if rows}

    def _keep(self, where: str, judged: str) -> None:
        name = where.replace("[", "-").replace("]", "").replace(".", "-")
        target = self.folder / "rejects" / f"mapping-{name}.parquet"
        target.parent.mkdir(exist_ok=True)
        self.connection.execute(
            f'COPY (SELECT "#rule" AS rule, "#row" AS row_text FROM {judged}'
            f" WHERE NOT starts_with(rule, '-') ORDER BY ALL) TO {quoted(target)} (FORMAT parquet)"
        )

    def _one(self, query: str) -> int:
        return int(self.connection.execute(query).fetchall()[0][0])
