# Only in Colab: fetch the book, install its package beside Colab's own PyTorch, and go to the chapters' folder.
try:
    import google.colab
except ImportError:
    pass  # anywhere else there is nothing to do
else:
    import os
    import subprocess
    import sys

    address, branch = "$address", "$branch"
    book = address.rpartition("/")[2]
    if not os.path.exists("../_toc.yml"):
        if not os.path.exists(book):
            subprocess.run(["git", "clone", "--quiet", "--depth=1", "--branch", branch, address], check=True)
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "./" + book], check=True)
        os.chdir(book + "/chapters")
    print("cnnlib is installed; the book and its data are in", os.path.dirname(os.getcwd()))
