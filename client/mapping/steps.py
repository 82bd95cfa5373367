"""The steps that reshape a relation's rows, as the YAML names them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from client.mapping.texts import TextList


class Strict(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)


class Unpivot(Strict):
    """A wide table becomes a long one: a row for each named column that holds a value."""

    columns: TextList | None = Field(default=None, description="columns that become rows")
    all_but: TextList | None = Field(default=None, description="instead of `columns`: every column but these")
    name: str = Field(default="name", description="new column with the name of the old one")
    value: str = Field(default="value", description="new column with its value")

    @model_validator(mode="after")
    def _one_list(self) -> "Unpivot":
        if (self.columns is None) == (self.all_but is None):
            raise ValueError("give either `columns` or `all_but`")
        return self


class Pivot(Strict):
    """A long table becomes a wide one: a row for each key, a column for each of the names in ``columns``."""

    key: TextList = Field(min_length=1, description="columns that name a row of the wide table")
    name: str = Field(description="column that holds the names")
    value: str = Field(description="column that holds the values")
    columns: TextList = Field(min_length=1, description="names that become columns; rows of other names are ignored")
    order: str = Field(default="", description="column by which `keep` says first or last; line order unless given")
    keep: Literal["first", "last"] = Field(default="first", description="which of several values of a key and name")


class Split(Strict):
    """A cell that lists several values becomes a row for each."""

    column: str = Field(description="column with the lists")
    by: str = Field(default=";", min_length=1, description="what stands between two values")


class Previous(Strict):
    """Columns of the row before, among the rows that share ``by``: the last known state, never a later one."""

    by: TextList = Field(min_length=1, description="columns that name one thing")
    order: str = Field(default="", description="SQL expression to order by; line order unless given")
    columns: dict[str, str] = Field(min_length=1, description="`new column: column of the row before`")


class KeepOne(Strict):
    """Of the rows that share ``by``, one is kept and the others are ignored."""

    by: TextList = Field(min_length=1, description="columns that name one thing")
    order: str = Field(default="", description="SQL expression to order by; line order unless given")
    take: Literal["first", "last"] = Field(default="first", description="which one is kept")


class Join(Strict):
    """Columns of another relation, looked up by key. The key is unique there, so no row is multiplied."""

    relation: str = Field(description="where to look")
    by: dict[str, str] = Field(min_length=1, description="`column here: column there`")
    columns: list[str] | dict[str, str] | None = Field(
        default=None, description="columns to bring, or `new name: column there`; all but the key unless given"
    )
    required: bool = Field(default=False, description="ignore rows that find nothing")
