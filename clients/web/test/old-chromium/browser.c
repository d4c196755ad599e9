/*
 * Opens one page in the Chromium of Qt WebEngine. Usage: browser URL
 *
 * PyQt5 wheels contain the libraries of old Qt versions, but no header files, and their Python modules need an old Python.
 * Therefore this program declares the few C++ functions that it needs by their mangled names.
 */
#include <string.h>

/* QString QString::fromUtf8_helper(const char *, int). The first argument points to the result. */
void _ZN7QString15fromUtf8_helperEPKci(void *result, const char *text, int length);
/* QUrl::QUrl(const QString &, QUrl::ParsingMode) */
void _ZN4QUrlC1ERK7QStringNS_11ParsingModeE(void *url, void *text, int mode);
/* QApplication::QApplication(int &, char **, int), int QApplication::exec() */
void _ZN12QApplicationC1ERiPPci(void *application, int *argc, char **argv, int version);
int _ZN12QApplication4execEv(void);
/* QWebEngineView::QWebEngineView(QWidget *), void QWebEngineView::load(const QUrl &) */
void _ZN14QWebEngineViewC1EP7QWidget(void *view, void *parent);
void _ZN14QWebEngineView4loadERK4QUrl(void *view, void *url);
/* void QWidget::show() */
void _ZN7QWidget4showEv(void *widget);

/* Each buffer is larger than its C++ object. The objects are never destroyed. */
static char application[4096], view[4096], text[64], url[64];

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    _ZN12QApplicationC1ERiPPci(application, &argc, argv, 0x050900);
    _ZN7QString15fromUtf8_helperEPKci(text, argv[1], (int)strlen(argv[1]));
    _ZN4QUrlC1ERK7QStringNS_11ParsingModeE(url, text, 0);
    _ZN14QWebEngineViewC1EP7QWidget(view, 0);
    _ZN14QWebEngineView4loadERK4QUrl(view, url);
    /* The page is visible, so that its timers are not throttled. */
    _ZN7QWidget4showEv(view);
    return _ZN12QApplication4execEv();
}
