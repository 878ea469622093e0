exec("def upgrade( ->")
revision, down_revision, branch_labels, depends_on = "0001", None, None, None
