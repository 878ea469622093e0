revision, down_revision, branch_labels, depends_on = "0002", "0001", None, None


def upgrade():
    pass
