"""A publication: as text and as BibTeX."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """A publication.

    Attributes
    ----------
    key
        Of the BibTeX entry.
    why
        What of the run it stands for.
    authors
        ``Family, Given`` or ``Family, G.``.
    title, journal, year
        As published; the journal may be empty.
    volume, number, pages
        Empty where there is none.
    doi
        Without the address.
    venue
        Conference, for one that is not in a journal.
    arxiv
        Number of the preprint.
    """

    key: str
    why: str
    authors: tuple[str, ...]
    title: str
    year: int
    journal: str = ""
    volume: str = ""
    number: str = ""
    pages: str = ""
    doi: str = ""
    venue: str = ""
    arxiv: str = ""

    @property
    def people(self) -> str:
        """Authors for people; of more than six the first, and others."""
        names = [" ".join(reversed(author.split(", "))) for author in self.authors]
        if len(names) > 6:
            return f"{names[0]} et al."
        return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

    @property
    def place(self) -> str:
        """Journal or conference, and year."""
        if self.journal:
            numbers = ", ".join(part for part in (self.volume, self.pages.replace("--", "–")) if part)
            return f"{self.journal} {numbers} ({self.year})" if numbers else f"{self.journal} ({self.year})"
        return f"{self.venue or f'arXiv:{self.arxiv}'} ({self.year})"

    @property
    def bibtex(self) -> str:
        """Entry for a bibliography."""
        fields = {
            "author": " and ".join(self.authors),
            "title": f"{{{self.title}}}",
            "journal": self.journal,
            "booktitle": self.venue,
            "volume": self.volume,
            "number": self.number,
            "pages": self.pages,
            "year": str(self.year),
            "eprint": self.arxiv,
            "archivePrefix": "arXiv" if self.arxiv else "",
            "doi": self.doi,
        }
        kind = "article" if self.journal else "inproceedings" if self.venue else "misc"
        lines = [f"  {name} = {{{value}}}" for name, value in fields.items() if value]
        return f"@{kind}{{{self.key},\n" + ",\n".join(lines) + "\n}"
