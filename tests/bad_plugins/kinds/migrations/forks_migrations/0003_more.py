revision, down_revision, branch_labels, depends_on = "0003", "0001", None, None


def upgrade():
    pass
