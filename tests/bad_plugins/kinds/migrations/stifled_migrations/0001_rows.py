revision, down_revision, branch_labels, depends_on = "0001", None, None, None


class StifledError(Exception):
    def __str__(self):
        raise SystemExit(9)


def upgrade():
    raise StifledError
